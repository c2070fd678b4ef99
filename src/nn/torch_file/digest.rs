//! Files whose names end in the first eight hexadecimal digits of their SHA-256, as torch.hub's downloads do
//! (`resnet18-f37072fd.pth`, `pt_inception-2015-12-05-6726825d.pth`): torch/hub.py, `HASH_REGEX`.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

const DIGITS: usize = 8;

/// The digits in the name. A date has eight digits too: without a letter nothing is meant.
fn digits(path: &Path) -> Option<&str> {
    let digits = path.file_stem()?.to_str()?.rsplit_once('-')?.1;
    let is_hex = digits.len() == DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_mixed =
        digits.bytes().any(|b| b.is_ascii_digit()) && digits.bytes().any(|b| b.is_ascii_lowercase());
    (is_hex && is_mixed).then_some(digits)
}

/// Compares the file with the digest in its name, where it has one.
///
/// # Errors
/// It is another file, or cannot be read.
pub(super) fn check(mut file: &File, path: &Path) -> Result<()> {
    let Some(digits) = digits(path) else { return Ok(()) };
    let failed = |e: std::io::Error| Error::failure(format!("cannot read the weights: {e}"));
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            break;
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
    let found: String = hasher.finalize().iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}")).collect();
    match found == digits {
        true => Ok(()),
        false => {
            Err(Error::input(format!("damaged: its SHA-256 begins with {found}, its name says {digits}"))
                .help("download it again; if the end of the name is not a digest, rename the file"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_torch_hub_has_a_digest_and_others_have_none() {
        let of = |name: &str| digits(Path::new(name)).map(str::to_owned);
        assert_eq!(of("nets/resnet18-f37072fd.pth").as_deref(), Some("f37072fd"));
        assert_eq!(of("pt_inception-2015-12-05-6726825d.pth").as_deref(), Some("6726825d"));
        for name in
            ["resnet18.pth", "run-20240131.pt", "net-F37072FD.pth", "net-f37072f.pth", "net-deadbeef.pth"]
        {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
