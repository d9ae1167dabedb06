# Completions for fish: labsh completions fish | source
function __labsh_complete
    set -l words (commandline -opc)
    set -l program $words[1]
    set -e words[1]
    LABSH_COMPLETE=fish command $program $words (commandline -ct) 2>/dev/null </dev/null
end
