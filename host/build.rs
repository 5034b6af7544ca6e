//! Lists the files of the SDK, for `weir plugin new` to write: whatever is in `guest-sdk` is in the command.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let host = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = host.parent().expect("the host is in the repository");
    let sdk = root.join("guest-sdk");
    let mut files = Vec::new();
    walk(&sdk, &mut files);
    files.sort();
    let mut list = String::from("pub static SDK: &[(&str, &str)] = &[\n");
    for file in &files {
        let name = file.strip_prefix(&sdk).expect("it was found there").display().to_string();
        writeln!(list, "    ({name:?}, include_str!({:?})),", file.display().to_string()).expect("a text");
    }
    list.push_str("];\n");
    for (name, file) in [("WORKSPACE", "Cargo.toml"), ("LOCK", "Cargo.lock")] {
        let path = root.join(file).display().to_string();
        writeln!(list, "pub static {name}: &str = include_str!({path:?});").expect("a text");
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-changed={}", sdk.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("sdk.rs"), list).expect("cargo's own folder can be written");
}

/// All files that are the SDK's own.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the SDK is there") {
        let path = entry.expect("it can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Its own tests need what a plugin does not.
        if name.starts_with('.') || ["target", "tests", "examples", "benches", "Cargo.lock"].contains(&&*name)
        {
            continue;
        }
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}
