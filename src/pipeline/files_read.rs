//! Which files of a diffusers folder loading reads. Whatever else lies there (a README, sample images, weights in
//! other formats) changes nothing.

use std::path::{Path, PathBuf};

use super::{
    file_names::{CONFIG, INDEX, SCHEDULER_CONFIG, TOKENIZER_FILES},
    folder::{NOT_NEEDED, PipelineFolder, PipelinePart},
    space::EXTRAS,
};

/// The files of a pipeline, or of one network that lies in a folder of its own, sorted. Empty for a folder that is
/// neither; files that are missing are left to loading, which reports them.
pub fn files_read(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = [INDEX, EXTRAS].map(|name| dir.join(name)).into();
    let parts: Vec<PipelinePart> = match PipelineFolder::open(dir) {
        Ok(folder) => {
            let needed = folder.parts().filter(|(name, _)| !NOT_NEEDED.contains(name));
            // The index of an unconditional model in latents does not name its autoencoder.
            needed.filter_map(|(_, part)| part.cloned()).chain(PipelinePart::open(&dir.join("vae"))).collect()
        }
        Err(_) => PipelinePart::open(dir).into_iter().collect(),
    };
    for part in parts {
        let names = [CONFIG, SCHEDULER_CONFIG].into_iter().chain(TOKENIZER_FILES);
        files.extend(names.map(|name| part.dir().join(name)));
        // What lies beside a tokenizer under a network's name is never loaded.
        let is_network = !part.class().contains("Tokenizer") && !part.class().ends_with("Scheduler");
        if is_network {
            files.extend(part.weight_files(None).unwrap_or_default());
        }
    }
    files.retain(|file| file.is_file());
    files.sort();
    files.dedup();
    files
}
