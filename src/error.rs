//! One error type: what is wrong, where, and what to do about it.

use std::{fmt, path::Path};

/// Whose move it is. Decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
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
    kind: Kind,
    problem: String,
    place: Option<String>,
    help: Option<String>,
    detail: Option<String>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The request was wrong.
    pub fn input(problem: impl Into<String>) -> Self {
        Self { kind: Kind::Input, problem: problem.into(), place: None, help: None, detail: None }
    }

    /// The request was right, but the work failed.
    pub fn failure(problem: impl Into<String>) -> Self {
        Self { kind: Kind::Failure, ..Self::input(problem) }
    }

    /// The file (or folder) that the problem is in. A place that is already known is kept.
    #[must_use]
    pub fn at(mut self, path: impl AsRef<Path>) -> Self {
        self.place.get_or_insert_with(|| path.as_ref().display().to_string());
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

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn log_detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// 2 where the request was wrong, 1 where a stage failed.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Input => 2,
            Kind::Failure => 1,
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
        Ok(())
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
                | Io::UnexpectedEof => Kind::Input,
                _ => Kind::Failure,
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

impl From<tch::TchError> for Error {
    /// The first line for the user, the C++ stack for the log.
    fn from(e: tch::TchError) -> Self {
        Self::of_libtorch(&e.to_string(), "libtorch: ")
    }
}

impl Error {
    /// What libtorch (or a panic of tch) says, in a line; the rest for the log.
    pub fn of_libtorch(whole: &str, before: &str) -> Self {
        if let Some(error) = no_memory(whole) {
            return error.detail(whole);
        }
        // tch's panic: called `Result::unwrap()` on an `Err` value: Torch("…\n…")
        let said = whole.split_once("value: Torch(\"").map_or(whole, |(_, said)| said);
        let first = said.split("\\n").next().and_then(|s| s.lines().next()).unwrap_or_default().trim();
        let first = if first.is_empty() { "libtorch failed" } else { first };
        Self::failure(format!("{before}{first}")).detail(whole)
    }
}

/// Too little memory, on the CPU or a GPU, and how much was asked for.
fn no_memory(whole: &str) -> Option<Error> {
    const SAID: [&str; 3] = ["can't allocate memory", "CUDA out of memory", "CUDA error: out of memory"];
    if !SAID.iter().any(|said| whole.contains(said)) {
        return None;
    }
    let after = |words: &str| whole.split_once(words).map(|(_, rest)| rest.trim_start());
    let asked = match (after("tried to allocate"), after("Tried to allocate")) {
        // The CPU says bytes, CUDA "2.00 GiB.".
        (Some(rest), _) => rest
            .split(' ')
            .next()
            .and_then(|n| n.parse::<f64>().ok())
            .map(|bytes| format!(" ({:.1} GiB more were asked for)", bytes / f64::from(1 << 30))),
        (None, Some(rest)) => {
            let amount: Vec<&str> = rest.split(' ').take(2).collect();
            Some(format!(" ({} more were asked for)", amount.join(" ").trim_end_matches('.')))
        }
        (None, None) => None,
    };
    Some(Error::failure(format!("there is not enough memory{}", asked.unwrap_or_default())).help(
        "lower the batch size, the image size or the network's channels, or run fewer processes (--jobs 1)",
    ))
}

impl Error {
    /// Whether a kernel of this process broke off on the GPU, after which the process can do nothing on it any more. Too little memory
    /// and a GPU that libtorch was not built for are no such errors.
    pub fn lost_the_gpu(&self) -> bool {
        const BROKEN_OFF: [&str; 3] = ["CUDA error:", "CUDA driver error:", "CUDNN_STATUS_EXECUTION_FAILED"];
        const WORKS_ON: [&str; 4] = ["out of memory", "ALLOC_FAILED", "NOT_INITIALIZED", "no kernel image"];
        let whole = self.detail.as_deref().unwrap_or_default();
        let holds = |words: &[&str]| words.iter().any(|word| whole.contains(word));
        holds(&BROKEN_OFF) && !holds(&WORKS_ON)
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
    fn a_libtorch_stack_stays_out_of_sight() {
        let e = tch::Tensor::from_slice(&[1.0f32, 2.0])
            .f_matmul(&tch::Tensor::from_slice(&[1.0f32]))
            .map_err(Error::from)
            .unwrap_err();
        assert_eq!(e.to_string().lines().count(), 1);
        assert!(e.log_detail().is_some());
    }

    #[test]
    fn too_little_memory_is_said_in_words() {
        let told = |whole: &str| Error::of_libtorch(whole, "the stage broke off: ").to_string();
        let cpu = "called `Result::unwrap()` on an `Err` value: Torch(\"[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 17179869184 bytes. Error code 12\\n\")";
        assert!(
            told(cpu).starts_with("there is not enough memory (16.0 GiB more were asked for)\n  help: lower")
        );
        let cuda = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB";
        assert!(
            told(cuda).starts_with("there is not enough memory (2.00 GiB more were asked for)"),
            "{}",
            told(cuda)
        );
        let other =
            "called `Result::unwrap()` on an `Err` value: Torch(\"shape '[3]' is invalid\\nframe #0\")";
        assert_eq!(told(other), "the stage broke off: shape '[3]' is invalid");
    }

    #[test]
    fn what_breaks_off_on_the_gpu_is_told_from_too_little_memory() {
        let lost = |message: &str| Error::failure("x").detail(message).lost_the_gpu();
        assert!(lost("CUDA error: misaligned address\nCUDA kernel errors might be reported later"));
        assert!(lost("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"));
        assert!(!lost("CUDA out of memory. Tried to allocate 2 GiB"));
        assert!(!lost("CUDA error: out of memory"));
        assert!(!lost("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"));
        assert!(!Error::failure("the loss is NaN").lost_the_gpu());
        // As another process tells of it: this one has its GPU still.
        assert!(!Error::failure("libtorch: CUDA error: an illegal memory access").lost_the_gpu());
    }
}
