//! `src/generated` is what the generators make of the contract. `make generate` writes it by way of this test, which
//! writes to the folder that `GENERATE_INTO` names, and compares when there is none.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use protox::Compiler;
use protox::prost_reflect::{DescriptorPool, Value};

const STUBS: &str = "docpreview.v1.rs";
const RETRIES: &str = "docpreview.v1.retry.rs";

#[test]
fn generated_code_is_of_this_contract() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contract = folder.join("../../protos");
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut compiler = Compiler::new([&contract]).unwrap();
    compiler.include_imports(true).include_source_info(true).open_files(files(&contract)).unwrap();
    tonic_prost_build::configure()
        // Users that put a fake gateway into their tests ask for the servers.
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .out_dir(scratch)
        .compile_fds(compiler.file_descriptor_set())
        .unwrap();
    let stubs = fs::read_to_string(scratch.join(STUBS)).unwrap();
    let fresh = [(STUBS, stubs), (RETRIES, retries(&compiler.descriptor_pool()))];
    if let Some(folder) = std::env::var_os("GENERATE_INTO").map(PathBuf::from) {
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in fresh {
            fs::write(folder.join(name), text).unwrap();
        }
        return;
    }
    for (name, text) in fresh {
        let kept = fs::read_to_string(folder.join("src/generated").join(name)).unwrap_or_default();
        assert!(kept == text, "src/generated/{name} is not what the generators make now: run `make generate`");
    }
}

/// The option `(retry)` of each reason, which prost leaves out.
fn retries(contract: &DescriptorPool) -> String {
    let reasons = contract.get_enum_by_name("docpreview.v1.ErrorReason").unwrap();
    let what = contract.get_enum_by_name("docpreview.v1.Retry").unwrap();
    let option = contract.get_extension_by_name("docpreview.v1.retry").unwrap();
    let mut table = String::new();
    for reason in reasons.values() {
        let retry = match reason.options().get_extension(&option).as_ref() {
            Value::EnumNumber(number) => what.get_value(*number).unwrap().name().to_owned(),
            other => panic!("{}: {other:?}", reason.name()),
        };
        let (reason, retry) = (camel(reason.name(), "ERROR_REASON_"), camel(&retry, "RETRY_"));
        writeln!(table, "            Self::{reason} => Retry::{retry},").unwrap();
    }
    format!(
        "// This file is @generated from the options of error_reason.proto.\n\
         impl ErrorReason {{\n    \
             /// What a program does with an error of this reason.\n    \
             pub fn retry(self) -> Retry {{\n        \
                 match self {{\n{table}        }}\n    }}\n}}\n"
    )
}

/// The name that prost gives a value.
fn camel(name: &str, prefix: &str) -> String {
    let words = name.strip_prefix(prefix).unwrap().split('_');
    words.map(|word| word[..1].to_owned() + &word[1..].to_ascii_lowercase()).collect()
}

/// The contract's files, in the order of their names.
fn files(contract: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(contract.join("docpreview/v1")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "proto")).collect();
    found.sort();
    found
}
