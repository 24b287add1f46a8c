# Does what the first line of its input says; see the folder's README.
read -r word argument

write() {
    local path=$1/was-here
    if { echo x > "$path"; } 2> /dev/null; then echo "WROTE $path"; else echo "denied $path"; fi
}

connect() {
    if timeout 2 bash -c "exec 3<> /dev/tcp/$1/$2" 2> /dev/null; then
        echo "CONNECTED $1:$2"
    else
        echo "denied $1:$2"
    fi
}

# Bash itself waits and tries again when it cannot fork; the program ends then without a word.
fork() {
    bomb() { bomb & bomb & }
    bomb
}

case $word in
    hello) echo hello ;;
    echo) exec cat ;;
    exit) exit "$argument" ;;
    raise) kill -SEGV $$ ;;
    spin) while :; do :; done ;;
    memory) held=$(printf '%4194304s' ''); while :; do held=$held$held; done ;;
    fork) fork ;;
    flood) exec yes "$(printf '%65535s' '' | tr ' ' x)" ;;
    write) for folder in "" /etc /usr /home /home/user; do write "$folder"; done ;;
    net)
        connect 1.1.1.1 80
        connect 127.0.0.1 22
        ;;
    child)
        setsid sleep 1000000 &
        echo left
        ;;
    *)
        echo "no such command: $word" >&2
        exit 2
        ;;
esac
