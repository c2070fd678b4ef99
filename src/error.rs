//! One error type: what is wrong, where, and what to do about it.

use std::{fmt, path::Path};

/// Whose move it is. Decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request (arguments, spec, data, store) was wrong: exit code 2.
    Input,
    /// Work that was asked for rightly did not succeed: exit code 1.
    Failure,
}

/// An error for a user's eyes: `place: problem`, then a `help:` line.
///
/// `detail` (a libtorch stack, for instance) goes into the log only.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    problem: String,
    place: Option<String>,
    help: Option<String>,
    detail: Option<String>,
    /// The next of faults that were found together.
    next: Option<Box<Error>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The request was wrong.
    pub fn input(problem: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Input,
            problem: problem.into(),
            place: None,
            help: None,
            detail: None,
            next: None,
        }
    }

    /// The request was right, but the work failed.
    pub fn failure(problem: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Failure, ..Self::input(problem) }
    }

    /// Faults that were found together, as one error that shows them all.
    ///
    /// # Errors
    /// There is at least one.
    pub fn all(faults: Vec<Self>) -> Result<()> {
        let joined = faults.into_iter().rev().reduce(|rest, mut fault| {
            fault.append(rest);
            fault
        });
        joined.map_or(Ok(()), Err)
    }

    fn append(&mut self, rest: Self) {
        match &mut self.next {
            Some(next) => next.append(rest),
            None => self.next = Some(Box::new(rest)),
        }
    }

    /// The file (or folder) that the problem is in. A place that is already known is kept.
    #[must_use]
    pub fn at(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        self.place.get_or_insert_with(|| path.display().to_string());
        self.next = self.next.map(|next| Box::new(next.at(path)));
        self
    }

    /// The file and the line (from 1) that the problem is in.
    #[must_use]
    pub fn at_line(mut self, path: impl AsRef<Path>, line: u64) -> Self {
        self.place.get_or_insert_with(|| format!("{}:{line}", path.as_ref().display()));
        self
    }

    /// What the user can do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.get_or_insert(help.into());
        self
    }

    /// More than a user wants to see; for the log.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail.get_or_insert(detail.into());
        self
    }

    /// Puts words before the problem: `while …: problem`.
    #[must_use]
    pub fn context(mut self, words: impl fmt::Display) -> Self {
        self.problem = format!("{words}: {}", self.problem);
        self
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub fn log_detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// 2 where the request was wrong, 1 where a stage failed.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Input => 2,
            ErrorKind::Failure => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}", self.problem)?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        // The word before the first is up to who prints it.
        match &self.next {
            Some(next) => write!(f, "\nerror: {next}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Gives an I/O result its path: `write.at_path(path, "cannot write")?`.
pub trait AtPath<T> {
    fn at_path(self, path: impl AsRef<Path>, action: &str) -> Result<T>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at_path(self, path: impl AsRef<Path>, action: &str) -> Result<T> {
        self.map_err(|e| {
            use std::io::ErrorKind as Io;
            let kind = match e.kind() {
                Io::NotFound
                | Io::PermissionDenied
                | Io::NotADirectory
                | Io::IsADirectory
                | Io::ReadOnlyFilesystem
                | Io::InvalidData
                | Io::UnexpectedEof => ErrorKind::Input,
                _ => ErrorKind::Failure,
            };
            let error = Error { kind, ..Error::input(format!("{action}: {e}")) }.at(path);
            match e.kind() {
                Io::StorageFull | Io::QuotaExceeded => {
                    error.help("make room there and start again: what is finished is kept")
                }
                _ => error,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_problem_and_help_are_shown_and_the_first_place_wins() {
        let e = Error::input("unknown view \"3CH\"")
            .at_line("manifest.csv", 12)
            .at("elsewhere")
            .help("use 2CH or 4CH");
        assert_eq!(e.to_string(), "manifest.csv:12: unknown view \"3CH\"\n  help: use 2CH or 4CH");
        assert_eq!(e.exit_code(), 2);
        assert_eq!(Error::failure("x").exit_code(), 1);
    }

    #[test]
    fn faults_that_were_found_together_are_all_shown() {
        assert!(Error::all(Vec::new()).is_ok());
        let one = || Error::input("is empty").at("a.pth").help("copy it again");
        assert_eq!(Error::all(vec![one()]).unwrap_err().to_string(), one().to_string());
        let all = Error::all(vec![one(), Error::input("no such key"), one()]).unwrap_err().at("s.toml");
        assert_eq!(
            all.to_string(),
            "a.pth: is empty\n  help: copy it again\nerror: s.toml: no such key\nerror: a.pth: is empty\n  help: copy it again"
        );
    }
}
