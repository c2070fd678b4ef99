//! Files that users name, opened only where they are plain files: opening a named pipe would wait for its writer, and
//! reading a device may never end.

use std::{
    fs::{self, File},
    io::{Error, ErrorKind, Read, Result},
    os::unix::fs::FileTypeExt,
    path::Path,
};

/// Opens a file for reading.
///
/// # Errors
/// It does not exist, is a link that leads nowhere, or is anything but a plain file. The message says which.
pub fn open(path: &Path) -> Result<File> {
    check(path)?;
    File::open(path)
}

/// The bytes of a file, as [`open`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a file, as [`open`].
pub fn read_to_string(path: &Path) -> Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Whether something that is not a folder has this name, be it a link that leads nowhere: what has the name of a
/// data set's file is read, so that its fault is reported and it is not passed over.
pub fn is_named(path: &Path) -> bool {
    !path.is_dir() && fs::symlink_metadata(path).is_ok()
}

fn check(path: &Path) -> Result<()> {
    let kind = match fs::metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) => {
            return Err(match fs::read_link(path) {
                Ok(target) if error.kind() == ErrorKind::NotFound => Error::new(
                    ErrorKind::NotFound,
                    format!("this is a link to {}, which does not exist", target.display()),
                ),
                _ => error,
            });
        }
    };
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "folder",
        kind if kind.is_fifo() => "named pipe",
        kind if kind.is_socket() => "socket",
        _ => "device",
    };
    Err(Error::new(ErrorKind::InvalidData, format!("this is a {what}, expected a file")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    #[test]
    fn only_plain_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "text").unwrap();
        symlink(at("file"), at("link")).unwrap();
        symlink(at("gone"), at("dangling")).unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        for name in ["file", "link"] {
            assert_eq!(read(&at(name)).unwrap(), b"text");
            assert_eq!(read_to_string(&at(name)).unwrap(), "text");
        }
        for (path, says) in [
            (at("pipe"), "a named pipe"),
            (at("socket"), "a socket"),
            ("/dev/zero".into(), "a device"),
            (dir.path().to_owned(), "a folder"),
            (at("dangling"), "gone, which does not exist"),
            (at("loop"), ""),
            (at("none"), "No such file"),
        ] {
            for error in [open(&path).unwrap_err(), read(&path).unwrap_err()] {
                assert!(error.to_string().contains(says), "{says}: {error}");
            }
        }
        let named = ["file", "link", "dangling", "loop", "socket", "pipe"];
        assert!(named.iter().all(|name| is_named(&at(name))));
        assert!(!is_named(&at("none")) && !is_named(dir.path()));
    }
}
