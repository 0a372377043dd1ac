
# Names of the probes and providers in the configuration.
_langmart-prober_names() {
    local config=() index
    for ((index = 1; index < COMP_CWORD - 1; index++)); do
        if [[ ${COMP_WORDS[index]} == --config ]]; then config=(--config "${COMP_WORDS[index + 1]}"); fi
    done
    langmart-prober check-config --no-secrets --json "${config[@]}" 2>/dev/null |
        grep -o "\"$1\":\"[^\"]*\"" | cut -d '"' -f 4 | sort -u
}

_langmart-prober_with_names() {
    _langmart__prober "$@"
    local word=${COMP_WORDS[COMP_CWORD]} kind=
    case ${COMP_WORDS[1]}:${COMP_WORDS[COMP_CWORD - 1]} in
        *:--config | *:--since | *:--vantage) ;;
        report:--probe | once:*) kind=probe ;;
        doctor:*) kind=provider ;;
    esac
    if [[ -n $kind && $word != -* ]]; then
        COMPREPLY=($(compgen -W "$(_langmart-prober_names "$kind")" -- "$word"))
    fi
}

complete -F _langmart-prober_with_names -o bashdefault -o default langmart-prober
