//! What this machine offers: libtorch, threads, numeric types, CUDA, and a store to write to.
//!
//! The program links against libtorch's CPU half alone, so that one binary serves every machine.
//! [`load_cuda`] brings in the CUDA half where it is installed. libtorch looks for it once, at the
//! first call that asks about CUDA, and caches the answer: so ask through this module.

use std::{
    env,
    ffi::{CStr, c_char, c_int, c_uint},
    fmt, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use serde::Serialize;

use crate::{
    determinism,
    error::{Error, Result},
    file_lock::FileLock,
};

/// Everything that [`inspect`] found.
#[derive(Debug, Clone, Serialize)]
pub struct Doctor {
    pub synecho: Program,
    pub libtorch: Libtorch,
    pub cpu: Cpu,
    pub threads: Threads,
    pub bf16: Bf16,
    pub cuda: Cuda,
    /// What `--device` can be on this machine.
    pub devices: Vec<String>,
    pub store: StoreState,
}

#[derive(Debug, Clone, Serialize)]
pub struct Program {
    pub version: String,
    /// The git commit that it was built from; empty outside a checkout.
    pub commit: String,
    /// The cargo features that it was built with.
    pub features: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Libtorch {
    /// As the loaded library states it.
    pub version: String,
    /// The folder that `libtorch_cpu.so` was loaded from.
    pub folder: Option<PathBuf>,
    pub mkl: bool,
    pub onednn: bool,
    pub openmp: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct Cpu {
    pub model: String,
    /// Logical cores that this process may use.
    pub cores: usize,
}

#[derive(Debug, Clone, Serialize)]
pub struct Threads {
    /// Of one libtorch operation.
    pub libtorch: i32,
    /// Of libtorch operations side by side.
    pub libtorch_interop: i32,
    /// Of loading and augmentation.
    pub rayon: usize,
}

/// How the CPU computes with bf16.
#[derive(Debug, Clone, Serialize)]
pub struct Bf16 {
    /// False: libtorch emulates it, which is slower than f32.
    pub native: bool,
    /// The instructions that it is native by.
    pub instructions: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Cuda {
    pub libraries: CudaState,
    /// The highest CUDA version that the NVIDIA driver serves, such as "13.0"; none without a driver.
    pub driver: Option<String>,
    pub devices: Vec<CudaDevice>,
    /// Why `devices` is empty, or shorter than what the driver names.
    pub no_device: Option<String>,
}

/// libtorch's CUDA half in this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum CudaState {
    Loaded { path: PathBuf },
    Absent { reason: String, help: String },
}

#[derive(Debug, Clone, Serialize)]
pub struct CudaDevice {
    pub index: usize,
    pub name: String,
    pub memory_bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct StoreState {
    pub path: PathBuf,
    pub writable: bool,
    /// Whether its file system can lock files, which a run needs.
    pub locks: bool,
    /// Why not.
    pub problem: Option<String>,
}

/// Looks at the machine, and tries whether `store` can be written (what it makes, it removes).
pub fn inspect(store: &Path) -> Doctor {
    let cuda = inspect_cuda();
    let mut devices = vec!["cpu".to_owned()];
    devices.extend(cuda.devices.iter().map(|device| format!("cuda:{}", device.index)));
    Doctor {
        synecho: Program {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("SYNECHO_COMMIT").to_owned(),
            features: if cfg!(feature = "hdf5") { vec!["hdf5".to_owned()] } else { Vec::new() },
        },
        libtorch: Libtorch {
            version: libtorch_version(),
            folder: libtorch_folder(),
            mkl: tch::utils::has_mkl(),
            onednn: tch::utils::has_mkldnn(),
            openmp: tch::utils::has_openmp(),
        },
        cpu: Cpu {
            model: cpu_model(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        },
        threads: Threads {
            libtorch: tch::get_num_threads(),
            libtorch_interop: tch::get_num_interop_threads(),
            rayon: rayon::current_num_threads(),
        },
        bf16: bf16(),
        cuda,
        devices,
        store: inspect_store(store),
    }
}

/// The version of the libtorch in this process, such as "2.13.0".
///
/// The library's own word where it gives one, else that of the `build-version` file beside it.
pub fn libtorch_version() -> String {
    type AbiVersion = unsafe extern "C" fn() -> u64;
    // SAFETY: a function of libtorch's stable C interface (torch/csrc/inductor/aoti_torch/c/shim.h).
    let stated = unsafe { Library::this().get::<AbiVersion>("aoti_torch_abi_version").map(|ask| ask()) };
    if let Ok(bytes) = stated.map(u64::to_be_bytes) {
        // torch/headeronly/version.h: major, minor and patch in the three highest bytes.
        return format!("{}.{}.{}", bytes[0], bytes[1], bytes[2]);
    }
    libtorch_folder()
        .and_then(|lib| fs::read_to_string(lib.parent()?.join("build-version")).ok())
        .map_or_else(|| "unknown".to_owned(), |version| version.trim().to_owned())
}

/// (library, version) of what decides numbers: for records and reports.
pub fn versions() -> Vec<(String, String)> {
    let named = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    vec![named("synecho", env!("CARGO_PKG_VERSION")), named("libtorch", &libtorch_version())]
}

/// The folder that this process has its `libtorch_cpu.so` from.
pub fn libtorch_folder() -> Option<PathBuf> {
    let loaded = fs::read_to_string("/proc/self/maps").ok().and_then(|maps| {
        let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
        Path::new(&line[line.find('/')?..]).parent().map(Path::to_owned)
    });
    // Where there is no such list of loaded files: the folder that the program was linked with.
    let linked = env!("SYNECHO_LIBTORCH_LIB");
    loaded.or_else(|| (!linked.is_empty()).then(|| linked.into()))
}

/// Loads libtorch's CUDA half from beside its CPU half, once; later calls give the same answer.
///
/// To be called before anything asks libtorch about CUDA, which caches what it is told.
pub fn load_cuda() -> &'static CudaState {
    static STATE: OnceLock<CudaState> = OnceLock::new();
    STATE.get_or_init(|| {
        let Some(path) = libtorch_folder().map(|folder| folder.join("libtorch_cuda.so")) else {
            return CudaState::Absent {
                reason: "libtorch's folder is not known".to_owned(),
                help: "run `just setup cuda`, then build again".to_owned(),
            };
        };
        if !path.is_file() {
            return CudaState::Absent {
                reason: format!("{} is not installed", path.display()),
                help: "`just setup cuda` brings the CUDA libraries (Linux, x86-64; 3 GB)".to_owned(),
            };
        }
        // SAFETY: libtorch's own library, made to be loaded beside libtorch_cpu.so. It registers
        // itself and must stay for the life of the process: hence the forget.
        match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
            Ok(library) => {
                std::mem::forget(library);
                CudaState::Loaded { path }
            }
            Err(error) => CudaState::Absent {
                reason: format!("libtorch_cuda.so does not load: {error}"),
                help: "`just setup cuda` completes the CUDA libraries".to_owned(),
            },
        }
    })
}

/// How many CUDA devices libtorch can use here; loads the CUDA libraries first.
pub fn cuda_device_count() -> usize {
    match load_cuda() {
        // Without a device libtorch would print a warning of its own.
        CudaState::Loaded { .. } if driver().is_ok_and(|driver| !driver.devices.is_empty()) => {
            usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
        }
        _ => 0,
    }
}

/// The device that a `--device` names: `cpu`, `cuda` (the first) or `cuda:N`.
///
/// # Errors
/// Any other word, and a CUDA device that this machine does not offer (with the reason).
pub fn choose_device(name: &str) -> Result<tch::Device> {
    let index = match name {
        "cpu" => return Ok(tch::Device::Cpu),
        "cuda" => Some(0),
        _ => name.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok()),
    };
    let Some(index) = index else {
        return Err(Error::input(format!("unknown device {name:?}")).help("use cpu, cuda or cuda:N"));
    };
    let count = cuda_device_count();
    if index < count {
        determinism::require();
        return Ok(tch::Device::Cuda(index));
    }
    Err(match load_cuda() {
        CudaState::Absent { reason, help } => {
            Error::input(format!("device {name} cannot be used: {reason}")).help(help.clone())
        }
        CudaState::Loaded { .. } if count > 0 => {
            Error::input(format!("device {name} is not there: this machine has {count}"))
                .help(format!("use cuda:0 to cuda:{}", count - 1))
        }
        CudaState::Loaded { .. } => {
            let reason = driver().map_or_else(|reason| reason, |_| "libtorch finds no device".to_owned());
            Error::input(format!("device {name} cannot be used: {reason}"))
                .help("use --device cpu, or see `synecho doctor`")
        }
    })
}

fn inspect_cuda() -> Cuda {
    let libraries = load_cuda().clone();
    let driver = driver();
    let no_device = match (&driver, &libraries) {
        (Err(reason), _) => Some(reason.clone()),
        (Ok(_), CudaState::Absent { .. }) => Some("the CUDA libraries are not loaded".to_owned()),
        (Ok(found), CudaState::Loaded { .. }) => {
            let usable = cuda_device_count();
            let named = found.devices.len();
            (usable < named).then(|| format!("libtorch can use {usable} of the driver's {named} devices"))
        }
    };
    let version = driver.as_ref().ok().map(|driver| driver.version.clone());
    let usable = cuda_device_count();
    let devices = driver.map(|driver| driver.devices).unwrap_or_default();
    Cuda { libraries, driver: version, devices: devices.into_iter().take(usable).collect(), no_device }
}

struct Driver {
    version: String,
    devices: Vec<CudaDevice>,
}

/// Asks the NVIDIA driver itself (CUDA driver API), which says why there is nothing to use.
fn driver() -> Result<Driver, String> {
    type Init = unsafe extern "C" fn(c_uint) -> c_int;
    type Number = unsafe extern "C" fn(*mut c_int) -> c_int;
    type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    type Memory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
    // SAFETY: the documented signatures of cuda.h; every pointer is to a live local.
    unsafe {
        let library = Library::open(Some("libcuda.so.1"), RTLD_NOW)
            .map_err(|_| "no NVIDIA driver (libcuda.so.1) is installed".to_owned())?;
        let missing = |error: libloading::Error| format!("the NVIDIA driver is incomplete: {error}");
        let init = library.get::<Init>("cuInit").map_err(missing)?;
        match init(0) {
            0 => {}
            100 => return Err("the NVIDIA driver finds no device".to_owned()), // CUDA_ERROR_NO_DEVICE
            code => return Err(format!("the NVIDIA driver does not start (cuInit gives {code})")),
        }
        let mut version = 0;
        library.get::<Number>("cuDriverGetVersion").map_err(missing)?(&raw mut version);
        let mut count = 0;
        library.get::<Number>("cuDeviceGetCount").map_err(missing)?(&raw mut count);
        let name_of = library.get::<Name>("cuDeviceGetName").map_err(missing)?;
        let memory_of = library.get::<Memory>("cuDeviceTotalMem_v2").map_err(missing)?;
        let devices = (0..count)
            .map(|index| {
                let mut name: [c_char; 128] = [0; 128];
                let mut memory_bytes = 0;
                // A device's handle is its number. The last byte stays 0, whatever is written.
                name_of(name.as_mut_ptr(), 127, index);
                memory_of(&raw mut memory_bytes, index);
                CudaDevice {
                    index: usize::try_from(index).unwrap_or(0),
                    name: CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned(),
                    memory_bytes: memory_bytes as u64,
                }
            })
            .collect::<Vec<_>>();
        if devices.is_empty() {
            return Err("the NVIDIA driver finds no device".to_owned());
        }
        // A driver may be loaded once a process: libtorch uses this one too, so it stays.
        std::mem::forget(library);
        Ok(Driver { version: format!("{}.{}", version / 1000, version % 1000 / 10), devices })
    }
}

/// Whether a device has instructions for bf16: of CUDA's every one since Ampere, and an older one computes it more slowly.
pub fn computes_in_bf16(device: &str) -> bool {
    device != "cpu" || bf16().native
}

/// The CPU's instructions for bf16.
fn bf16() -> Bf16 {
    let mut instructions: Vec<String> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx512bf16") {
            instructions.push("avx512_bf16".to_owned());
        }
        if cpu_info("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "amx_bf16")) {
            instructions.push("amx_bf16".to_owned());
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("bf16") {
        instructions.push("bf16".to_owned());
    }
    Bf16 { native: !instructions.is_empty(), instructions }
}

fn cpu_model() -> String {
    cpu_info("model name").unwrap_or_else(|| env::consts::ARCH.to_owned())
}

/// The first value of a field of /proc/cpuinfo.
fn cpu_info(field: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == field).then(|| value.trim().to_owned())
    })
}

/// Tries to write a file in the store's folder, and removes whatever that made.
fn inspect_store(store: &Path) -> StoreState {
    let missing: Vec<&Path> =
        store.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
    let probe = store.join(format!(".probe-{}", std::process::id()));
    let tried = fs::create_dir_all(store).and_then(|()| fs::write(&probe, b"synecho"));
    let locked = tried.is_ok().then(|| FileLock::try_take(&probe).map(|_| ()));
    // Best effort: what cannot be removed was not written. Never more than empty folders go.
    let _ = fs::remove_file(&probe);
    for folder in missing {
        let _ = fs::remove_dir(folder);
    }
    StoreState {
        path: store.to_owned(),
        writable: tried.is_ok(),
        locks: matches!(locked, Some(Ok(()))),
        problem: match (tried, locked) {
            (Err(error), _) => Some(format!("cannot be written: {error}")),
            (Ok(()), Some(Err(error))) => Some(format!("cannot be used: {error}")),
            (Ok(()), _) => None,
        },
    }
}

impl Doctor {
    /// Label and text of each line; an empty label goes on from the line above.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        let commit = if self.synecho.commit.is_empty() { "unknown" } else { &self.synecho.commit };
        let features = if self.synecho.features.is_empty() {
            "no optional features".to_owned()
        } else {
            format!("with {}", self.synecho.features.join(", "))
        };
        lines.push(("synecho", format!("{} (commit {commit}, {features})", self.synecho.version)));
        let parts: Vec<&str> =
            [("MKL", self.libtorch.mkl), ("oneDNN", self.libtorch.onednn), ("OpenMP", self.libtorch.openmp)]
                .into_iter()
                .filter_map(|(name, there)| there.then_some(name))
                .collect();
        lines.push(("libtorch", format!("{} ({})", self.libtorch.version, parts.join(", "))));
        if let Some(folder) = &self.libtorch.folder {
            lines.push(("", folder.display().to_string()));
        }
        lines.push(("CPU", format!("{}, {}", self.cpu.model, count(self.cpu.cores, "core"))));
        let Threads { libtorch, libtorch_interop, rayon } = self.threads;
        lines
            .push(("threads", format!("libtorch {libtorch} (inter-op {libtorch_interop}), loading {rayon}")));
        lines.push((
            "bf16",
            if self.bf16.native {
                format!("native ({})", self.bf16.instructions.join(", "))
            } else {
                "emulated: slower than f32 on this CPU".to_owned()
            },
        ));
        match &self.cuda.libraries {
            CudaState::Loaded { path } => {
                lines.push(("CUDA", "libraries loaded".to_owned()));
                lines.push(("", path.display().to_string()));
            }
            CudaState::Absent { reason, help } => {
                lines.push(("CUDA", format!("libraries not loaded: {reason}")));
                lines.push(("", format!("help: {help}")));
            }
        }
        if let Some(version) = &self.cuda.driver {
            lines.push(("", format!("the driver serves CUDA {version}")));
        }
        if let Some(reason) = &self.cuda.no_device {
            lines.push((
                "",
                if self.cuda.devices.is_empty() { format!("no device: {reason}") } else { reason.clone() },
            ));
        }
        lines.push(("devices", "cpu".to_owned()));
        for device in &self.cuda.devices {
            let gib = device.memory_bytes as f64 / f64::from(1 << 30);
            lines.push(("", format!("cuda:{}  {}, {gib:.0} GiB", device.index, device.name)));
        }
        let store = self.store.path.display();
        let state = self.store.problem.as_deref().unwrap_or("can be written, and its files locked");
        let mut state = state.lines();
        lines.push(("store", format!("{store} {}", state.next().unwrap_or_default())));
        lines.extend(state.map(|line| ("", line.trim().to_owned())));
        lines
    }
}

fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

impl fmt::Display for Doctor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, text) in self.lines() {
            writeln!(f, "{label:<10}{text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("a/b");
        let found = inspect_store(&new);
        assert!(found.writable && found.locks && found.problem.is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the new folders are gone again");

        fs::write(folder.path().join("kept"), "x").unwrap();
        assert!(inspect_store(folder.path()).writable);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        // A store below a file can never be written, not even by root.
        let found = inspect_store(&folder.path().join("kept/runs"));
        assert!(!found.writable && !found.locks && found.problem.is_some());
        assert!(folder.path().join("kept").is_file());
    }

    #[test]
    fn libtorch_is_the_version_that_tch_is_made_for() {
        assert_eq!(libtorch_version(), "2.13.0");
        let folder = libtorch_folder().expect("a loaded library has a folder");
        assert!(folder.join("libtorch_cpu.so").exists() || cfg!(not(target_os = "linux")));
    }

    #[test]
    fn cuda_is_refused_with_a_reason_where_it_is_not() {
        assert_eq!(choose_device("cpu").unwrap(), tch::Device::Cpu);
        for name in ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", ""] {
            let error = choose_device(name).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("cpu, cuda or cuda:N"), "{error}");
        }
        let devices = cuda_device_count();
        assert_eq!(choose_device("cuda").is_ok(), devices > 0);
        let error = choose_device(&format!("cuda:{devices}")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("help: "), "{error}");
    }

    #[test]
    fn what_is_found_agrees_with_itself() {
        let folder = tempfile::tempdir().unwrap();
        let found = inspect(folder.path());
        assert_eq!(found.devices.len(), 1 + cuda_device_count());
        assert_eq!(found.cuda.devices.is_empty(), found.cuda.no_device.is_some() && found.devices.len() == 1);
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(json["libtorch"]["version"], "2.13.0");
        let state = json["cuda"]["libraries"]["state"].as_str().unwrap();
        assert_eq!(state == "loaded", matches!(load_cuda(), CudaState::Loaded { .. }));
        let text = found.to_string();
        for label in ["synecho", "libtorch", "CPU", "threads", "bf16", "CUDA", "devices", "store"] {
            assert_eq!(
                text.lines().filter(|line| line.split(' ').next() == Some(label)).count(),
                1,
                "{label}"
            );
        }
    }
}
