//! What is said of a checkpoint that is not read. A file's own words are shortened and escaped before they are shown.

use std::fmt::Display;

use crate::error::Error;

/// The longest part of a file's own words that an error repeats.
const SHOWN: usize = 60;

/// The file asks for something that this reader does not do.
pub(super) fn unread(problem: impl Into<String>) -> Error {
    Error::input(problem).help(
        "only tensors and plain containers are read, and nothing in the file is executed: save the state_dict only, \
         torch.save(model.state_dict(), FILE), or convert it in Python",
    )
}

/// The file is not what `torch.save` wrote.
pub(super) fn damaged(why: impl Display) -> Error {
    Error::input(format!("not a whole PyTorch checkpoint: {why}")).help("copy or download it again")
}

/// Words of a file without control characters, of a length that fits into a line.
pub(super) fn shown(words: &str) -> String {
    let mut text: String = words.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if words.chars().nth(SHOWN).is_some() {
        text.push('…');
    }
    text
}
