package main

import "fmt"

func main() {
	number := 1
	fmt.Println("declared and not used")
}
