//! libtorch's errors as ours: one line for the user, the C++ stack for the log.

use crate::error::Error;

impl From<tch::TchError> for Error {
    /// The first line for the user, the C++ stack for the log.
    fn from(e: tch::TchError) -> Self {
        Self::of_libtorch(&e.to_string(), "libtorch: ")
    }
}

impl Error {
    /// One line of libtorch's message (or of a panic of tch); the rest is for the log.
    pub fn of_libtorch(whole: &str, before: &str) -> Self {
        if let Some(error) = no_memory(whole) {
            return error.detail(whole);
        }
        // tch's panic: called `Result::unwrap()` on an `Err` value: Torch("…\n…")
        let message = whole.split_once("value: Torch(\"").map_or(whole, |(_, message)| message);
        let first = message.split("\\n").next().and_then(|s| s.lines().next()).unwrap_or_default().trim();
        let first = if first.is_empty() { "libtorch failed" } else { first };
        Self::failure(format!("{before}{first}")).detail(whole)
    }
}

/// Too little memory, on the CPU or a GPU, and how much was requested.
fn no_memory(whole: &str) -> Option<Error> {
    const MESSAGES: [&str; 3] = ["can't allocate memory", "CUDA out of memory", "CUDA error: out of memory"];
    if !MESSAGES.iter().any(|message| whole.contains(message)) {
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
    /// Whether a kernel of this process failed on the GPU, after which the process cannot use the GPU any more.
    /// This is not so after an allocation that failed, or on a GPU that libtorch was not built for.
    pub fn lost_the_gpu(&self) -> bool {
        const FATAL: [&str; 3] = ["CUDA error:", "CUDA driver error:", "CUDNN_STATUS_EXECUTION_FAILED"];
        const HARMLESS: [&str; 4] = ["out of memory", "ALLOC_FAILED", "NOT_INITIALIZED", "no kernel image"];
        let whole = self.log_detail().unwrap_or_default();
        let holds = |words: &[&str]| words.iter().any(|word| whole.contains(word));
        holds(&FATAL) && !holds(&HARMLESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn too_little_memory_is_reported_with_its_amount() {
        let shown = |whole: &str| Error::of_libtorch(whole, "the stage broke off: ").to_string();
        let cpu = "called `Result::unwrap()` on an `Err` value: Torch(\"[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 17179869184 bytes. Error code 12\\n\")";
        assert!(
            shown(cpu)
                .starts_with("there is not enough memory (16.0 GiB more were asked for)\n  help: lower")
        );
        let cuda = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB";
        assert!(
            shown(cuda).starts_with("there is not enough memory (2.00 GiB more were asked for)"),
            "{}",
            shown(cuda)
        );
        let other =
            "called `Result::unwrap()` on an `Err` value: Torch(\"shape '[3]' is invalid\\nframe #0\")";
        assert_eq!(shown(other), "the stage broke off: shape '[3]' is invalid");
    }

    #[test]
    fn a_lost_gpu_is_distinguished_from_too_little_memory() {
        let lost = |message: &str| Error::failure("x").detail(message).lost_the_gpu();
        assert!(lost("CUDA error: misaligned address\nCUDA kernel errors might be reported later"));
        assert!(lost("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"));
        assert!(!lost("CUDA out of memory. Tried to allocate 2 GiB"));
        assert!(!lost("CUDA error: out of memory"));
        assert!(!lost("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"));
        assert!(!Error::failure("the loss is NaN").lost_the_gpu());
        // Another process's error, reported here: this process still has its GPU.
        assert!(!Error::failure("libtorch: CUDA error: an illegal memory access").lost_the_gpu());
    }
}
