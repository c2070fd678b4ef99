//! `synecho cache`: the features of images that `synecho measure` keeps between calls.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{print, print_json};
use crate::{
    error::{Error, Result},
    measure::extractor::CacheFolder,
};

/// Of the folder: the features of some 250,000 images.
const LIMIT: &str = "2G";

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Print where features are kept, and how much there is
    Show {
        #[command(flatten)]
        cache: CacheArgs,
        #[command(flatten)]
        limit: LimitArgs,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Remove all kept features. They are recomputed when they are needed
    Clear {
        #[command(flatten)]
        cache: CacheArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct CacheArgs {
    /// Folder that keeps features [default: synecho/features in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct LimitArgs {
    /// Bytes that the folder of kept features may hold, with K, M, G or T. The features used least recently go first
    #[arg(long = "cache-limit", value_name = "SIZE", default_value = LIMIT, env = "SYNECHO_CACHE_LIMIT", value_parser = size)]
    pub(super) limit: u64,
}

pub(super) fn carry_out(command: &CacheCommand) -> Result<u8> {
    match command {
        CacheCommand::Show { cache, limit, json } => {
            let found = cache.folder()?.usage()?;
            if *json {
                return print_json(&json!({
                    "folder": found.folder,
                    "sets": found.sets,
                    "bytes": found.bytes,
                    "limit_bytes": limit.limit,
                }));
            }
            print(&format!(
                "{}: features of {} sets of images, {} of at most {}",
                found.folder.display(),
                found.sets,
                shown(found.bytes),
                shown(limit.limit)
            ))
        }
        CacheCommand::Clear { cache } => {
            let gone = cache.folder()?.clear()?;
            print(&format!(
                "{}: removed the features of {} sets of images, {}",
                gone.folder.display(),
                gone.sets,
                shown(gone.bytes)
            ))
        }
    }
}

impl CacheArgs {
    fn folder(&self) -> Result<CacheFolder> {
        let path = self.cache.clone().or_else(user_cache);
        path.map(|path| CacheFolder::new(&path)).ok_or_else(|| {
            Error::input("neither XDG_CACHE_HOME nor HOME names the user's cache folder")
                .help("name the folder: --cache DIR")
        })
    }
}

/// The folder for features, in the one for files that programs can recompute.
pub(super) fn user_cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(folder.join(Path::new("synecho/features")))
}

const UNITS: [(&str, u64); 4] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];

/// `500M` as bytes.
fn size(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let plain = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((plain.strip_suffix(unit)?, *bytes)));
    let (number, unit) = unit.unwrap_or((plain, 1));
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.ok_or_else(|| "expected a whole number with K, M, G or T, such as 500M or 2G".to_owned())
}

/// Bytes in the largest unit of which there is at least one.
fn shown(bytes: u64) -> String {
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}iB", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("3k", 3072),
            ("500M", 500 << 20),
            (LIMIT, 2 << 30),
            ("1 TiB", 1 << 40),
            ("5MB", 5 << 20),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "G", "-1", "1.5G", "2X", "99999999999T", "2 G B"] {
            assert!(size(wrong).unwrap_err().contains("500M"), "{wrong}");
        }
        assert_eq!(
            ["0", "1023", "1536", "2G"].map(|text| shown(size(text).unwrap())).join(", "),
            "0 bytes, 1023 bytes, 1.5 KiB, 2.0 GiB"
        );
    }
}
