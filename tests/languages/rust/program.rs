//! Does what the first line of its input says; see the folder's README.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{exit, Command};
use std::time::Duration;

fn write(folder: &str) {
    let path = format!("{folder}/was-here");
    match std::fs::write(&path, "x") {
        Ok(()) => println!("WROTE {path}"),
        Err(_) => println!("denied {path}"),
    }
}

fn connect(address: &str) {
    let target: SocketAddr = address.parse().unwrap();
    match TcpStream::connect_timeout(&target, Duration::from_secs(2)) {
        Ok(_) => println!("CONNECTED {address}"),
        Err(_) => println!("denied {address}"),
    }
}

fn fork() {
    while Command::new("sleep").arg("1000000").spawn().is_ok() {}
    println!("refused");
}

fn memory() {
    let mut held = Vec::new();
    loop {
        held.push(vec![1_u8; 1 << 22]);
    }
}

fn flood() {
    let line = "x".repeat(65535);
    loop {
        println!("{line}");
    }
}

fn main() {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).unwrap();
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let first = String::from_utf8_lossy(&input[..end]).into_owned();
    let (word, argument) = first.split_once(' ').unwrap_or((&first, ""));
    match word {
        "hello" => println!("hello"),
        "echo" => std::io::stdout().write_all(&input[(end + 1).min(input.len())..]).unwrap(),
        "exit" => exit(argument.parse().unwrap()),
        "raise" => panic!("as asked"),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "memory" => memory(),
        "fork" => fork(),
        "flood" => flood(),
        "write" => ["", "/etc", "/usr", "/home", "/home/user"].into_iter().for_each(write),
        "net" => ["1.1.1.1:80", "127.0.0.1:22"].into_iter().for_each(connect),
        "child" => {
            Command::new("setsid").args(["sleep", "1000000"]).spawn().unwrap();
            println!("left");
        }
        other => panic!("no such command: {other}"),
    }
}
