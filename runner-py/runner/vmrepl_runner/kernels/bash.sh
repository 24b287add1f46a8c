# A shell whose names persist: read once by an interactive bash that gets one command line after another on its input.
# Answers go to the descriptor $__vmrepl_fd, each field with a zero byte behind it.

set +H +o history
shopt -u checkwinsize
unset HISTFILE PS1 PS2
__vmrepl_status=0

# The status that the last cell left, for `$?` in the next one.
__vmrepl_last() { return "$__vmrepl_status"; }

# From here on an interrupt is the cell's.
__vmrepl_begin() {
  printf 'begun\0%s\0' "$1" >&"$__vmrepl_fd"
  trap - INT
}

# The cell is over: how, and which names there are. It is called three times, for an interrupt that comes as the shell reads this
# line makes it drop that.
__vmrepl_end() {
  local status=$?
  trap '' INT
  [[ ${__vmrepl_ended-} == "$1" ]] && return
  __vmrepl_ended=$1
  __vmrepl_status=$status
  if [[ -v __vmrepl_exit ]]; then
    __vmrepl_status=$__vmrepl_exit
    exec 2>&"$__vmrepl_errors" {__vmrepl_errors}>&-
    unset __vmrepl_exit __vmrepl_errors
  fi
  printf 'ended\0%s\0%s\0' "$1" "$__vmrepl_status" >&"$__vmrepl_fd"
  __vmrepl_names
}

__vmrepl_names() {
  declare -p >&"$__vmrepl_fd"
  printf '\0' >&"$__vmrepl_fd"
  declare -f >&"$__vmrepl_fd"
  printf '\0' >&"$__vmrepl_fd"
}

# What could stand in place of a word: $2 is how compgen is to look.
__vmrepl_complete() {
  printf 'words\0%s\0' "$1" >&"$__vmrepl_fd"
  compgen $2 -- "$3" | head -n 500 >&"$__vmrepl_fd"
  printf '\0' >&"$__vmrepl_fd"
}

__vmrepl_describe() {
  printf 'told\0%s\0' "$1" >&"$__vmrepl_fd"
  { type -a -- "$2" && help -m -- "$2"; } >&"$__vmrepl_fd" 2>/dev/null
  printf '\0' >&"$__vmrepl_fd"
}

__vmrepl_said() { printf 'said\0%s\0' "$1" >&"$__vmrepl_fd"; }

# The session goes on; what has no shell below it ends as ever.
exit() {
  if [[ $BASHPID == "$$" ]]; then
    __vmrepl_exit=${1-$?}
    # The shell ends the line of what was interrupted.
    exec {__vmrepl_errors}>&2 2>/dev/null
    kill -INT "$$"
  else
    builtin exit "$@"
  fi
}
trap '' INT
