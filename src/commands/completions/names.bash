
# Names of the probes and providers in the configuration.
_langmart-prober_names() {
    local config=() file= index
    for ((index = 1; index < COMP_CWORD; index++)); do
        case ${COMP_WORDS[index]}:${COMP_WORDS[index + 1]} in
            # Bash splits --config=FILE in three words, unless = is not in COMP_WORDBREAKS.
            --config:=) file=${COMP_WORDS[index + 2]} ;;
            --config:*) file=${COMP_WORDS[index + 1]} ;;
            --config=*) file=${COMP_WORDS[index]#--config=} ;;
        esac
    done
    if [[ -n $file ]]; then config=(--config "${file/#~\//$HOME/}"); fi
    langmart-prober check-config --no-secrets --json "${config[@]}" 2>/dev/null |
        grep -o "\"$1\":\"[^\"]*\"" | cut -d '"' -f 4 | sort -u
}

_langmart-prober_with_names() {
    _langmart__prober "$@"
    local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} kind=
    if [[ $option == = ]]; then option=${COMP_WORDS[COMP_CWORD - 2]}; fi
    if [[ $word == = ]]; then word=; fi
    case ${COMP_WORDS[1]}:$option in
        *:--config | *:--since | *:--vantage) ;;
        report:--probe | once:*) kind=probe ;;
        report:--provider | doctor:*) kind=provider ;;
    esac
    if [[ -n $kind && $word != -* ]]; then
        COMPREPLY=($(compgen -W "$(_langmart-prober_names "$kind")" -- "$word"))
    fi
}

complete -F _langmart-prober_with_names -o bashdefault -o default langmart-prober
