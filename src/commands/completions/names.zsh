# Names of the probes and providers in the configuration.
_langmart-prober_names() {
    local -a config names
    local file at=${words[(I)--config(|=*)]}
    if (( at )); then
        file=${words[at]#--config=}
        if [[ $file == --config ]]; then file=${words[at + 1]}; fi
        config=(--config "${file/#\~\//$HOME/}")
    fi
    names=(${(f)"$(langmart-prober check-config --no-secrets --json $config 2>/dev/null |
        grep -o "\"$1\":\"[^\"]*\"" | cut -d '"' -f 4 | sort -u)"})
    compadd -a names
}

_langmart-prober_probes() { _langmart-prober_names probe }

_langmart-prober_providers() { _langmart-prober_names provider }

