//! Tells the linker three things about a release, where it can be told.
//!
//! The tables for unwinding are left out: the standard library is compiled with
//! them, a program that aborts at a panic never reads them, and they are a
//! twelfth of the file. What runs before the first refresh lies together, and
//! so does what a refresh adds, by the lists in `build/order.txt`: the kernel
//! maps code in pieces of 64 KB, and of each that is touched all of it. Relative
//! relocations are packed, a few KB in the place of 150; not every C library
//! can read them. Each linker has its own ideas about all of this, so a tiny
//! program is linked that way first: where that fails, or the tiny program
//! does, the release goes without.
#![allow(clippy::disallowed_methods, reason = "runs at build time and touches nothing but its own folder")]

use std::env::var;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ORDER: &str = include_str!("build/order.txt");
const TRIAL: &str = r#"fn main() { assert!(std::env::args().count() > 0); println!("it runs"); }"#;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build/order.txt");
    // The tests' own program unwinds, and so does a debug build.
    let is_release = var("PROFILE").as_deref() == Ok("release") && var("CARGO_FEATURE_SANDBOX").is_err();
    if is_release
        && var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux")
        && let Some(arguments) = link_arguments()
    {
        for argument in arguments {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
    }
}

/// The linker script: a section for each list, before all other code.
fn script() -> String {
    // Where every program begins has no list to be in.
    let mut script = "SECTIONS {
    /DISCARD/ : { *(.eh_frame .eh_frame_hdr .gcc_except_table .gcc_except_table.*) }
    .text.start : { *crt1.o(.text) *crtbegin*.o(.text) }
"
    .to_owned();
    for list in ORDER.split("# ").skip(1) {
        let mut names = list.lines();
        script.extend(["    .text.", names.next().unwrap_or_default(), " : { *("]);
        for name in names {
            // What the compiler takes for unlikely runs all the same.
            script.extend([".text.", name, " .text.unlikely.", name, " "]);
        }
        script.push_str(") }\n");
    }
    script + "} INSERT BEFORE .text;\n"
}

/// What the linker is to be told, as far as it understands it.
fn link_arguments() -> Option<Vec<String>> {
    let folder = PathBuf::from(var("OUT_DIR").ok()?);
    let (path, source, program) = (folder.join("release.ld"), folder.join("trial.rs"), folder.join("trial"));
    std::fs::write(&path, script()).and_then(|()| std::fs::write(&source, TRIAL)).ok()?;
    let (order, pack) = (format!("-Wl,-T,{}", path.to_str()?), "-Wl,-z,pack-relative-relocs".to_owned());
    // A linker that knows nothing of packing warns of it and goes without.
    let ways = [(vec![order.clone(), pack], true), (vec![order], false)];
    let works = |(arguments, is_packed): &(Vec<String>, bool)| {
        links(&source, &program, arguments).unwrap_or(false) && runs(&program, *is_packed)
    };
    ways.into_iter().find(works).map(|(arguments, _)| arguments)
}

fn links(source: &Path, program: &Path, arguments: &[String]) -> Option<bool> {
    let mut rustc = Command::new(var("RUSTC").ok()?);
    rustc.args(["--edition=2024", "-Cpanic=abort", "--target", &var("TARGET").ok()?]);
    rustc.args(var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().split('\x1f').filter(|flag| !flag.is_empty()));
    if let Ok(linker) = var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    rustc.args(arguments.iter().map(|argument| format!("-Clink-arg={argument}")));
    rustc.arg("-o").arg(program).arg(source);
    Some(succeeds(&mut rustc))
}

/// For another machine than this one, that it links has to do; but not every C library reads what is packed.
fn runs(program: &Path, is_packed: bool) -> bool {
    succeeds(&mut Command::new(program)) || !is_packed && var("HOST").ok() != var("TARGET").ok()
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
