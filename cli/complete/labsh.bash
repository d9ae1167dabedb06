# Completions for bash: . <(labsh completions bash)
_labsh() {
    local program=${1/#\~\//"$HOME/"}
    COMPREPLY=()
    mapfile -t COMPREPLY < <(
        LABSH_COMPLETE=bash command "$program" "${COMP_LINE:0:COMP_POINT}" "$2" 2>/dev/null </dev/null
    )
}
complete -o nospace -F _labsh PROGRAMS
