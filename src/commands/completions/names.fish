
# Names of the probes and providers in the configuration.
function __langmart_prober_names
    set -l words (commandline -opc)
    set -l config
    for index in (seq (count $words))
        switch $words[$index]
            case --config
                set config --config $words[(math $index + 1)]
            case '--config=*'
                set config --config (string replace -- --config= '' $words[$index])
        end
    end
    set config (string replace -r '^~/' "$HOME/" -- $config)
    langmart-prober check-config --no-secrets --json $config 2>/dev/null |
        grep -o "\"$argv[1]\":\"[^\"]*\"" | cut -d '"' -f 4 | sort -u
end

complete -c langmart-prober -n "__fish_seen_subcommand_from once" -f -a "(__langmart_prober_names probe)"
complete -c langmart-prober -n "__fish_seen_subcommand_from report" -l probe -x -a "(__langmart_prober_names probe)"
complete -c langmart-prober -n "__fish_seen_subcommand_from report" -l provider -x -a "(__langmart_prober_names provider)"
complete -c langmart-prober -n "__fish_seen_subcommand_from doctor" -f -a "(__langmart_prober_names provider)"
