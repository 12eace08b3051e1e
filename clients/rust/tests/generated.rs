//! `src/generated` is what the generators make of the contract. `make generate` writes it by way of this test, which
//! writes to the folder that `GENERATE_INTO` names, and compares when there is none.

use std::fs;
use std::path::{Path, PathBuf};

const NAME: &str = "docpreview.v1.rs";

#[test]
fn generated_code_is_of_this_contract() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contract = folder.join("../../protos");
    let scratch = folder.join("target/generated");
    fs::create_dir_all(&scratch).unwrap();
    let compiled = protox::compile(files(&contract), [&contract]).unwrap();
    tonic_prost_build::configure()
        // Users that put a fake gateway into their tests ask for the servers.
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .out_dir(&scratch)
        .compile_fds(compiled)
        .unwrap();
    let fresh = fs::read_to_string(scratch.join(NAME)).unwrap();
    let kept = folder.join("src/generated").join(NAME);
    if let Some(folder) = std::env::var_os("GENERATE_INTO").map(PathBuf::from) {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(NAME), &fresh).unwrap();
        return;
    }
    assert!(
        fs::read_to_string(&kept).unwrap_or_default() == fresh,
        "src/generated/{NAME} is not what the generators make now: run `make generate`"
    );
}

/// The contract's files, in the order of their names.
fn files(contract: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(contract.join("docpreview/v1")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "proto")).collect();
    found.sort();
    found
}
