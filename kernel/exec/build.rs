//! Makes Rust of the `.proto` files: the messages and the services for the program, and once more with the clients, for
//! its tests.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["exec.proto", "guest.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for side in ["server", "client"] {
        let folder = out.join(side);
        fs::create_dir_all(&folder)?;
        tonic_prost_build::configure()
            .build_server(side == "server")
            .build_client(side == "client")
            .build_transport(false)
            .btree_map(".")
            .bytes(".")
            .out_dir(folder)
            .compile_fds(files.clone())?;
    }
    Ok(())
}
