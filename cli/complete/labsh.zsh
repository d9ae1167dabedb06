#compdef PROGRAMS
# Completions for zsh: . <(labsh completions zsh), after compinit.
_labsh() {
    local program=${~words[1]} line value
    local -a lines fields final final_shown open open_shown options
    lines=("${(@f)$(
        LABSH_COMPLETE=zsh command "$program" "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" \
            2>/dev/null </dev/null
    )}")
    # What begins with ~/ must not be quoted as a whole.
    [[ $PREFIX == \~/* ]] && options=(-Q -U)
    for line in "${lines[@]}"; do
        fields=("${(@ps:\t:)line}")
        value=${fields[2]}
        [[ -n $value ]] || continue
        line=$value${fields[3]:+  -- ${fields[3]}}
        [[ $PREFIX == \~/* ]] && value="~${(q)value#\~}"
        if [[ ${fields[1]} == final ]]; then
            final+=("$value") final_shown+=("$line")
        else
            open+=("$value") open_shown+=("$line")
        fi
    done
    (( $#final )) && compadd $options -d final_shown -a final
    (( $#open )) && compadd $options -S '' -d open_shown -a open
    (( $#final + $#open ))
}
compdef _labsh PROGRAMS
