//! Tells the linker two things about a release, where it can be told.
//!
//! The tables for unwinding are left out: the standard library is compiled with
//! them, a program that aborts at a panic never reads them, and they are a
//! twelfth of the file. What only a refresh needs lies together, behind what
//! is needed all the time: the kernel maps code in pieces of 64 KB. Each linker
//! has its own ideas about scripts, so a tiny program is linked with ours
//! first: where that fails, or the tiny program does, the release goes without.
#![allow(clippy::disallowed_methods, reason = "runs at build time and touches nothing but its own folder")]

use std::env::var;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SCRIPT: &str = "\
SECTIONS {
    /DISCARD/ : { *(.eh_frame .eh_frame_hdr .gcc_except_table .gcc_except_table.*) }
    .text.rare : {
        *(.text.*rustls* .text.*reqwest* .text.*hyper* .text.*webpki* .text.*tower* .text.*httparse*)
        *(.text.*libyaml* .text.*yaml_serde* .text.*similar* .text.*qrcode*)
    }
} INSERT AFTER .text;
";
const TRIAL: &str = r#"fn main() { assert!(std::env::args().count() > 0); println!("it runs"); }"#;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The tests' own program unwinds, and so does a debug build.
    let is_release = var("PROFILE").as_deref() == Ok("release") && var("CARGO_FEATURE_SANDBOX").is_err();
    if is_release
        && var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux")
        && let Some(argument) = link_argument()
    {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}

/// What the linker is to be told, if it understands it.
fn link_argument() -> Option<String> {
    let folder = PathBuf::from(var("OUT_DIR").ok()?);
    let (script, source, program) = (folder.join("release.ld"), folder.join("trial.rs"), folder.join("trial"));
    std::fs::write(&script, SCRIPT).and_then(|()| std::fs::write(&source, TRIAL)).ok()?;
    let argument = format!("-Wl,-T,{}", script.to_str()?);
    let works = links(&source, &program, &argument)? && runs(&program);
    works.then_some(argument)
}

fn links(source: &Path, program: &Path, argument: &str) -> Option<bool> {
    let mut rustc = Command::new(var("RUSTC").ok()?);
    rustc.args(["--edition=2024", "-Cpanic=abort", "--target", &var("TARGET").ok()?]);
    rustc.args(var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().split('\x1f').filter(|flag| !flag.is_empty()));
    if let Ok(linker) = var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    rustc.arg(format!("-Clink-arg={argument}")).arg("-o").arg(program).arg(source);
    Some(succeeds(&mut rustc))
}

/// For another machine than this one, that it links has to do.
fn runs(program: &Path) -> bool {
    var("HOST").ok() != var("TARGET").ok() || succeeds(&mut Command::new(program))
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
