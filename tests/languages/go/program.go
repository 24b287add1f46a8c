// Does what the first line of its input says; see the folder's README.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func write(folder string) {
	path := folder + "/was-here"
	if os.WriteFile(path, []byte("x"), 0o644) == nil {
		fmt.Println("WROTE", path)
	} else {
		fmt.Println("denied", path)
	}
}

func connect(address string) {
	if _, err := net.DialTimeout("tcp", address, 2*time.Second); err == nil {
		fmt.Println("CONNECTED", address)
	} else {
		fmt.Println("denied", address)
	}
}

func start(own bool) error {
	command := exec.Command("sleep", "1000000")
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: own}
	return command.Start()
}

func fork() {
	for start(false) == nil {
	}
	fmt.Println("refused")
}

func memory() {
	var held [][]byte
	for {
		block := make([]byte, 1<<22)
		for at := range block {
			block[at] = 1
		}
		held = append(held, block)
	}
}

func flood() {
	line := strings.Repeat("x", 65535) + "\n"
	for {
		os.Stdout.WriteString(line)
	}
}

func main() {
	input, _ := io.ReadAll(os.Stdin)
	first, rest, _ := bytes.Cut(input, []byte("\n"))
	word, argument, _ := strings.Cut(string(first), " ")
	switch word {
	case "hello":
		fmt.Println("hello")
	case "echo":
		os.Stdout.Write(rest)
	case "exit":
		code, _ := strconv.Atoi(argument)
		os.Exit(code)
	case "raise":
		panic("as asked")
	case "spin":
		for {
		}
	case "memory":
		memory()
	case "fork":
		fork()
	case "flood":
		flood()
	case "write":
		for _, folder := range []string{"", "/etc", "/usr", "/home", "/home/user"} {
			write(folder)
		}
	case "net":
		connect("1.1.1.1:80")
		connect("127.0.0.1:22")
	case "child":
		start(true)
		fmt.Println("left")
	default:
		panic("no such command: " + word)
	}
}
