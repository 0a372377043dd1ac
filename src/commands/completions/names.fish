
# Names of the probes and providers in the configuration.
function __langmart_prober_names
    set -l words (commandline -opc)
    set -l config
    if set -l at (contains -i -- --config $words)
        set config --config $words[(math $at + 1)]
    end
    langmart-prober check-config --no-secrets --json $config 2>/dev/null |
        grep -o "\"$argv[1]\":\"[^\"]*\"" | cut -d '"' -f 4 | sort -u
end

complete -c langmart-prober -n "__fish_seen_subcommand_from once" -f -a "(__langmart_prober_names probe)"
complete -c langmart-prober -n "__fish_seen_subcommand_from report" -l probe -x -a "(__langmart_prober_names probe)"
complete -c langmart-prober -n "__fish_seen_subcommand_from doctor" -f -a "(__langmart_prober_names provider)"
