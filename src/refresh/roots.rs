//! Who vouches for a server.
//!
//! Read anew for each request, and one file of it where there is one: that is a
//! tenth of the work of a whole folder, and nothing of it is kept.

#![expect(clippy::disallowed_methods, reason = "the system's certificates, no file of the user's")]

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error, PemObject as _};

/// Where Linux has all certificates in one file: Debian, Alpine and Arch; Fedora; SUSE; and what is left.
const FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Where it has one file for each.
const FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// The roots from the first source that has any: the option, `SSL_CERT_FILE` and `SSL_CERT_DIR`, the
/// system's, the built-in ones.
pub fn find(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    if let Some(path) = ca_file {
        return named(path);
    }
    let mut roots = RootCertStore::empty();
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    match (variable("SSL_CERT_FILE"), variable("SSL_CERT_DIR")) {
        (None, None) => {
            if !FILES.iter().any(|path| add_file(&mut roots, Path::new(path))) {
                FOLDERS.iter().any(|path| add_folder(&mut roots, Path::new(path)));
            }
        }
        (file, folders) => {
            if let Some(file) = file {
                add_file(&mut roots, Path::new(&file));
            }
            for folder in folders.iter().flat_map(std::env::split_paths) {
                add_folder(&mut roots, &folder);
            }
        }
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

/// The certificates of a file that a person named: all of them must be good.
fn named(path: &Path) -> Result<RootCertStore, String> {
    let unusable = |why: String| format!("--ca-file {} cannot be used: {why}", path.display());
    let unreadable = |error: Error| match error {
        Error::Io(error) => unusable(crate::disk::explain(&error)),
        other => unusable(other.to_string()),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

/// Adds what can be used of a file; whether that was anything. A piece at a time: after one allocation as large as
/// the file, glibc keeps that much more of everything that is freed.
fn add_file(roots: &mut RootCertStore, path: &Path) -> bool {
    let Ok(certificates) = CertificateDer::pem_file_iter(path) else { return false };
    let (added, _) = roots.add_parsable_certificates(certificates.flatten());
    added > 0
}

/// Adds the files of a folder; whether there was anything. Most are there twice, with a link by another name.
fn add_folder(roots: &mut RootCertStore, folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let mut seen = HashSet::new();
    let is_new = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|found| found.is_file() && seen.insert((found.dev(), found.ino())))
    };
    let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_new).collect();
    files.iter().fold(false, |any, path| add_file(roots, path) | any)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=test`.
    const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBdDCCARmgAwIBAgIUVxUssfoezPLV9qgHxf65c0J/3LcwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAeFw0yNjExMjIxODQyMjhaFw0yNjExMjMxODQyMjha
MA8xDTALBgNVBAMMBHRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASboQ+d
Dh9pH7ENdr4DT2J1PYhckOjd1Je59q3g5r0dnSHDBBjeZl+9J+hf7Kgn0kgG67p3
gWAY9dHh45YtK6hbo1MwUTAdBgNVHQ4EFgQUoA9dzTsQu6HQSJeM9x5V1Nhx6c8w
HwYDVR0jBBgwFoAUoA9dzTsQu6HQSJeM9x5V1Nhx6c8wDwYDVR0TAQH/BAUwAwEB
/zAKBggqhkjOPQQDAgNJADBGAiEAqLHgMOLp1Kmi/IQiPcj5uwWzbDAH8Tcruj8W
A6UODgkCIQD4/AmDGPHdBNfeQjoiH8LwehZgR89VEuLCudBfIyYZTQ==
-----END CERTIFICATE-----
";

    /// Without anything named, there are the system's or the built-in ones.
    #[test]
    fn never_nobody() {
        assert!(find(None).is_ok_and(|roots| roots.len() > 10));
    }

    /// A named file must be there and hold certificates, and what is wrong with it is said.
    #[test]
    fn named_file() {
        let why = |path: &str| find(Some(Path::new(path))).map(|roots| roots.len()).unwrap_err();
        assert!(why("/nowhere/ca.pem").contains("/nowhere/ca.pem cannot be used: it does not exist"));
        assert!(why("/dev/null").contains("it holds no certificate"));
    }

    /// A folder counts each certificate once, whatever names it has, and what is no certificate not at all.
    #[test]
    fn folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("one.pem"), CERTIFICATE).unwrap();
        std::os::unix::fs::symlink("one.pem", folder.path().join("0123abcd.0")).unwrap();
        fs::write(folder.path().join("readme"), "no certificate").unwrap();
        let mut roots = RootCertStore::empty();
        assert!(add_folder(&mut roots, folder.path()));
        assert_eq!(roots.len(), 1);
        assert!(!add_folder(&mut roots, Path::new("/nowhere")));
    }
}
