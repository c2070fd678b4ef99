//! What each command does, by the modules that know how.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use chrono::{Local, SecondsFormat};
use clap::CommandFactory;
use serde_json::json;
use signal_hook::{consts::SIGINT, iterator::Signals};

use super::{
    CPU, Cli, Command, DataCommand, MeasureCommand, OUT, ReportArgs, RunArgs, STORE, SampleArgs, SetArgs,
    SpecArgs, distances,
    output::{print, print_json},
    request::{self, Asked, ask},
    status,
};
use crate::{
    data::{self, import::Imported},
    doctor,
    error::{AtPath, Error, Result},
    execute::{self, Executor, LocalWorkers, RunOptions, RunRequest},
    experiment,
    generate::sample::{self, ControlPicture, SampleOptions},
    measure::{self, ejection_fraction::folder::FractionOptions, folder::PairingOptions},
    pace::duration,
    pipeline::PipelineSource,
    plan::{self, Plan, RecordedSampling, Stage, StageKind},
    progress::{Progress, ProgressOptions, Verbosity, complain},
    report::{self, ReportInput},
    store::Store,
    train,
    vocabulary::FigureFormat,
};

pub(super) fn carry_out(command: Command) -> Result<u8> {
    match command {
        Command::Run(arguments) => run(&arguments),
        Command::Plan { spec, json } => show_plan(&spec, json),
        Command::Status { spec, set, store, watch, json } => {
            let show = || status::status(spec.as_deref(), &set, &store.store, json);
            if watch { status::watch(show) } else { show() }
        }
        Command::Explain { report, cell } => print(&report::lineage::explain(&report, cell.as_deref())?),
        Command::Report(arguments) => redraw(&arguments),
        Command::Doctor { store, json } => {
            let found = doctor::inspect(&store.store);
            if json { print_json(&found) } else { print(&found.to_string()) }
        }
        Command::Sample(arguments) => sample(*arguments),
        Command::Data(command) => data_command(command),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "synecho", &mut text);
            print(&String::from_utf8_lossy(&text))
        }
        Command::Man { folder } => manual(&folder),
        Command::Measure(MeasureCommand::Dice(a)) => {
            let by_name = [("--truth", a.truth.as_deref()), ("--prediction", a.prediction.as_deref())];
            let (truth, prediction) = distances::pair([a.first.as_deref(), a.second.as_deref()], by_name)?;
            let options = PairingOptions { only_common: a.common, list_cases: a.cases };
            let found = measure::folder::compare(truth, prediction, options)?;
            if a.json { print_json(&found) } else { print(&found.to_string()) }
        }
        Command::Measure(MeasureCommand::Ef(a)) => {
            let options = FractionOptions { split: a.split, list_cases: a.cases };
            let found =
                measure::ejection_fraction::folder::measure(&a.reference, a.prediction.as_deref(), options)?;
            if a.json { print_json(&found) } else { print(&found.to_string()) }
        }
        Command::Measure(MeasureCommand::All(arguments)) => distances::all(&arguments),
        Command::Measure(MeasureCommand::Fid(arguments)) => distances::fid(&arguments),
        Command::Measure(MeasureCommand::Kid(arguments)) => distances::kid(&arguments),
        Command::Measure(MeasureCommand::Prdc(arguments)) => distances::prdc(&arguments),
        Command::Measure(MeasureCommand::Memorisation(arguments)) => distances::memorisation(&arguments),
        Command::Measure(MeasureCommand::Statistics(arguments)) => distances::statistics(&arguments),
        Command::Measure(MeasureCommand::Texture { sets, split, json }) => {
            let (real, synthetic) = sets.both()?;
            let found = measure::texture::folder::compare_folders(real, synthetic, split)?;
            if json { print_json(&found) } else { print(&found.to_string()) }
        }
        Command::Weights(command) => super::weights::carry_out(&command),
        Command::Cache(command) => super::cache::carry_out(&command),
    }
}

/// What the data set tells once it is imported.
fn check_imported(args: &SpecArgs, asked: &Asked, store: &Store) -> Result<()> {
    match execute::imported(&asked.plan, store, &asked.digests) {
        Some(data) => execute::preflight_data(&asked.spec, Some(&data)).map_err(|e| e.at(&args.spec)),
        None => Ok(()),
    }
}

fn run(args: &RunArgs) -> Result<u8> {
    let started = SystemTime::now();
    let file = &args.spec.spec;
    let device = doctor::choose_device(&args.spec.set.device)?;
    let shares = execute::share_cores(device, args.jobs, args.threads);
    // The spec before the store: a spec that is wrong leaves nothing behind.
    let spec = match args.helper {
        // The process that started this one has checked it.
        true => request::load(file, &args.spec.set),
        false => request::load_checked(file, &args.spec.set),
    }?;
    let store = Store::open(&args.spec.store.store)?;
    if !args.helper {
        store.remove_stale_locks();
    }
    let asked = request::plan_of(spec, store.root())?;
    check_imported(&args.spec, &asked, &store)?;
    report::is_report(&args.reports.join(&asked.spec.experiment.name))?;
    let executor = match args.helper {
        true => Executor::Worker,
        // A worker runs the same command.
        false => Executor::LocalWorkers(LocalWorkers {
            count: shares.processes - 1,
            arguments: std::env::args_os().skip(1).chain(["--helper".into()]).collect(),
        }),
    };
    let progress = run_progress(args, &store, &asked.spec.experiment.name)?;
    let outcome = execute::run(&RunRequest {
        plan: &asked.plan,
        store: &store,
        digests: &asked.digests,
        options: RunOptions {
            device,
            threads: shares.threads,
            checkpoint_every: args.checkpoint_every,
            started,
            fail_fast: args.fail_fast,
            versions: doctor::versions(),
            commit: env!("SYNECHO_COMMIT").to_owned(),
        },
        executor,
        progress: &progress,
    })?;
    if args.helper {
        return Ok(outcome.exit_code());
    }
    progress.clear();
    let fault = |text: &str| {
        progress.log(text);
        complain(text);
    };
    for (i, error) in outcome.failures() {
        fault(&format!("error: {}: {error}", asked.plan.stages[i].label));
    }
    if outcome.blocked() > 0 {
        fault(&format!("{} of {} stages were not begun", outcome.blocked(), asked.plan.stages.len()));
    }
    if outcome.exit_code() == 0 {
        let to = args.reports.join(&asked.spec.experiment.name);
        let input = draw(&asked.plan, &store, &FigureFormat::ALL, &to, &|text| progress.line(text))?;
        let (done, all) = (outcome.done(), asked.plan.stages.len());
        let text = format!(
            "{}\n{done} of {all} stages were computed now, {} were in the store. The report is {}\n",
            report::results(&input)?,
            all - done,
            to.join(report::PAGE).display()
        );
        let text = text.trim_start_matches('\n');
        progress.log(text);
        print(text)?;
    }
    Ok(outcome.exit_code())
}

/// The progress of a run, which has a log in the store. A worker's lines go into the log of the process that started it.
fn run_progress(args: &RunArgs, store: &Store, name: &str) -> Result<Progress> {
    let verbosity = match (args.quiet && !args.helper, args.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, true) => Verbosity::Verbose,
        (false, false) => Verbosity::Normal,
    };
    if args.helper {
        // What is not shown is logged by the process that started this one.
        return Ok(Progress::of_run(ProgressOptions { verbosity, worker: true, log: None }));
    }
    let now = Local::now();
    let name = format!("{}-{name}-{}", now.format("%Y%m%dT%H%M%S"), std::process::id());
    let (file, log) = store.new_log(&name)?;
    let progress = Progress::of_run(ProgressOptions { verbosity, worker: false, log: Some(log) });
    let command: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    progress.log(&format!(
        "{}, synecho {} ({}), {}",
        now.to_rfc3339_opts(SecondsFormat::Secs, false),
        env!("CARGO_PKG_VERSION"),
        env!("SYNECHO_COMMIT"),
        command.join(" ")
    ));
    progress.detail(format!("the log is {}", file.display()));
    let watched = progress.clone();
    // Where no handler can be set, Ctrl-C ends the run without a word: nothing else is lost.
    if let Ok(mut signals) = Signals::new([SIGINT]) {
        std::thread::spawn(move || {
            for signal in signals.forever() {
                watched.clear();
                let text =
                    "interrupted. The same command resumes: finished stages and checkpoints are in the store";
                watched.log(text);
                complain(text);
                // As without a handler: libtorch must not be taken down while other threads compute.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        });
    }
    Ok(progress)
}

/// The command that does what is missing, with what was typed.
fn run_again(spec: &Path, set: &SetArgs, store: &Path) -> String {
    let mut command = format!("synecho run {}", spec.display());
    for set in &set.sets {
        command += &format!(" --set '{set}'");
    }
    if set.device != CPU {
        command += &format!(" --device {}", set.device);
    }
    if store != Path::new(STORE) {
        command += &format!(" --store {}", store.display());
    }
    command
}

fn report_stage(plan: &Plan) -> Result<&Stage> {
    let found = plan.stages.iter().find(|stage| stage.kind() == StageKind::Report);
    found.ok_or_else(|| Error::failure("the plan has no report"))
}

/// Draws the report of a finished plan where people look for it, and returns its data. The store keeps the data of the
/// report that was there.
fn draw(
    plan: &Plan,
    store: &Store,
    formats: &[FigureFormat],
    to: &Path,
    say: &dyn Fn(&str),
) -> Result<ReportInput> {
    let stage = report_stage(plan)?;
    let data = store.artifact(stage.kind(), &stage.key);
    if let Some(key) = report::earlier_key(to).filter(|key| *key != stage.key) {
        let earlier = store.artifact(stage.kind(), &key);
        let kept = match !key.is_empty() && earlier.is_dir() {
            true => format!("; `synecho report --from {} --out DIR` draws that one again", earlier.display()),
            false => String::new(),
        };
        say(&format!("{} held the report of another run, which is replaced{kept}", to.display()));
    }
    let input = report::read(&data)?;
    match report::is_current(&data, formats, to) {
        true => report::remove_half_written(to)?,
        false => report::draw(&input, formats, to)?,
    }
    Ok(input)
}

fn redraw(args: &ReportArgs) -> Result<u8> {
    let drawn = match (&args.from, &args.spec) {
        (Some(from), _) => {
            let to = args.out.as_ref().unwrap_or(from);
            report::draw(&report::read(from)?, &args.formats, to)?;
            to.clone()
        }
        (None, Some(spec)) => redraw_from_store(args, spec)?,
        (None, None) => {
            return Err(Error::input("the spec is missing")
                .help("name a spec, or the folder of a report with --from"));
        }
    };
    print(&format!("{}\n", drawn.join(report::PAGE).display()))
}

/// Draws the report of a plan whose stages are all done, and returns its folder.
fn redraw_from_store(args: &ReportArgs, spec: &Path) -> Result<PathBuf> {
    let asked = ask(spec, &args.set, &args.store.store)?;
    let store = Store::look(&args.store.store)?;
    let missing: Vec<&Stage> = asked
        .plan
        .stages
        .iter()
        .filter(|s| s.kind() != StageKind::Report)
        .filter(|s| !matches!(store.lookup(s.kind(), &s.key, &asked.digests), Ok(Some(_))))
        .collect();
    if let Some(first) = missing.first() {
        return Err(Error::input(format!(
            "{} of {} stages are not done yet, the first is: {}",
            missing.len(),
            asked.plan.stages.len() - 1,
            first.label
        ))
        .help(run_again(spec, &args.set, &args.store.store)));
    }
    let store = Store::open(&args.store.store)?;
    let outcome = execute::run(&RunRequest {
        plan: &asked.plan,
        store: &store,
        digests: &asked.digests,
        options: RunOptions {
            device: tch::Device::Cpu,
            threads: execute::share_cores(tch::Device::Cpu, Some(1), None).threads,
            checkpoint_every: execute::CHECKPOINT_EVERY,
            started: SystemTime::now(),
            fail_fast: true,
            versions: doctor::versions(),
            commit: env!("SYNECHO_COMMIT").to_owned(),
        },
        executor: Executor::ThisProcess,
        progress: &Progress::new(false),
    })?;
    if let Some((_, error)) = outcome.failures().next() {
        return Err(error.clone());
    }
    let to = args.out.clone().unwrap_or_else(|| Path::new(OUT).join(&asked.spec.experiment.name));
    draw(&asked.plan, &store, &args.formats, &to, &complain)?;
    Ok(to)
}

fn show_plan(args: &SpecArgs, as_json: bool) -> Result<u8> {
    let spec = request::load_checked(&args.spec, &args.set)?;
    let asked = request::plan_of(spec, &args.store.store)?;
    let store = Store::look(&args.store.store)?;
    check_imported(args, &asked, &store)?;
    let rates = store.rates();
    let rows: Vec<_> = asked
        .plan
        .stages
        .iter()
        .map(|stage| {
            let there = matches!(store.lookup(stage.kind(), &stage.key, &asked.digests), Ok(Some(_)));
            let (class, units) = stage.work.cost();
            let rate = rates.get(&class).filter(|_| !there);
            (stage, there, rate.map(|rate| (rate.seconds * units, rate.peak_memory)))
        })
        .collect();
    asked.digests.save();
    let misses: Vec<_> = rows.iter().filter(|(_, there, _)| !there).collect();
    let known: f64 = misses.iter().filter_map(|(_, _, cost)| *cost).map(|(seconds, _)| seconds).sum();
    let unknown = misses.iter().filter(|(_, _, cost)| cost.is_none()).count();
    let memory = misses.iter().filter_map(|(_, _, cost)| (*cost)?.1).max();
    if as_json {
        let stages: Vec<_> = rows
            .iter()
            .map(|(stage, there, cost)| {
                json!({
                    "key": stage.key,
                    "kind": stage.kind(),
                    "label": stage.label,
                    "hit": there,
                    "estimated_seconds": cost.map(|(seconds, _)| seconds),
                    "estimated_memory_bytes": cost.and_then(|(_, memory)| memory),
                    "inputs": stage.inputs,
                    "params": plan::params(&stage.work),
                })
            })
            .collect();
        return print_json(&json!({
            "experiment": asked.spec.experiment.name,
            "stages": stages,
            "to_do": misses.len(),
            "estimated_seconds": known,
            "estimated_memory_bytes": memory,
            "without_estimate": unknown,
        }));
    }
    let mut text = format!("{}: {} stages\n", asked.spec.experiment.title, rows.len());
    let gibibytes = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    for (stage, there, cost) in &rows {
        let state = if *there { "there" } else { "to do" };
        let cost = cost.map(|(seconds, memory)| {
            let memory = memory.map(|bytes| format!(", {}", gibibytes(bytes))).unwrap_or_default();
            format!("about {}{memory}", duration(seconds))
        });
        let cost = cost.unwrap_or_default();
        text += &format!(
            "  {state}  {}  {:<10} {}  {cost}\n",
            &stage.key[..12],
            stage.kind().as_str(),
            stage.label
        );
    }
    text += &match misses.len() {
        0 => "the store has everything: a run only draws the report\n".to_owned(),
        n if known > 0.0 && unknown == 0 => {
            format!("{n} to do, about {} as one process (from earlier runs)\n", duration(known))
        }
        n if known > 0.0 => format!(
            "{n} to do: {} in about {} as one process (from earlier runs), {unknown} of unknown length\n",
            n - unknown,
            duration(known)
        ),
        n => {
            format!("{n} to do; nothing like them was run in this store yet, so their length is not known\n")
        }
    };
    if let Some(bytes) = memory {
        text += &format!("each process needs up to {} of memory (from earlier runs)\n", gibibytes(bytes));
    }
    print(&text)
}

/// Writes `synecho.1`, `synecho-run.1` and so on.
fn manual(folder: &Path) -> Result<u8> {
    std::fs::create_dir_all(folder).at_path(folder, "cannot make the folder")?;
    clap_mangen::generate_to(Cli::command(), folder).at_path(folder, "cannot write the manual pages")?;
    print(&format!("the manual pages are in {}", folder.display()))
}

fn sample(arguments: SampleArgs) -> Result<u8> {
    let mut a = arguments;
    let progress = Progress::new(a.quiet);
    sample_as_in_run(&mut a, &progress);
    let options = SampleOptions {
        source: PipelineSource {
            pipeline: &a.pipeline,
            controlnet: a.controlnet.as_deref(),
            scheduler: a.scheduler,
            levels: a.noise_levels,
            shift: a.shift,
            variant: a.variant.as_deref(),
            kind: train::kind_of(a.dtype),
            device: doctor::choose_device(&a.device)?,
        },
        prompt: a.prompt,
        negative_prompt: a.negative_prompt,
        guidance: a.guidance,
        clip_skip: a.clip_skip,
        control: match (a.control_image, a.control_mask) {
            (Some(file), _) => Some(ControlPicture::Image(file)),
            (None, mask) => mask.map(|mask| ControlPicture::Mask { mask, sector: a.sector }),
        },
        conditioning_scale: a.conditioning_scale,
        class_label: a.class_label,
        size: a.height.zip(a.width).map(|(height, width)| [height, width]),
        steps: a.steps.map(|n| n as usize),
        eta: a.eta,
        latents: a.latents,
        seed: a.seed,
        count: a.count as usize,
        batch_size: a.batch_size as usize,
        out: a.out,
    };
    let made = sample::sample(&options, &progress)?;
    print(&format!("{made} images in {}", options.out.display()))
}

/// Samples a generator of a store as its run did, where nothing else is asked for.
fn sample_as_in_run(a: &mut SampleArgs, progress: &Progress) {
    let records = Store::made_from(&a.pipeline, StageKind::Generate);
    let Some(run) = records.last().and_then(|record| RecordedSampling::of(&record.params)) else { return };
    // The number of steps and where they lie go with the scheduler.
    if a.scheduler.is_none_or(|chosen| chosen == run.scheduler) {
        a.scheduler = Some(run.scheduler);
        a.noise_levels.get_or_insert(run.noise_levels);
        a.shift = a.shift.or(run.shift);
        a.steps = a.steps.or(u32::try_from(run.sampling_steps).ok());
    }
    a.guidance.get_or_insert(run.guidance);
    let shown = |word: &str, value: String| format!("{word} {value}");
    let settings = [
        a.scheduler.map(|scheduler| shown("--scheduler", scheduler.to_string())),
        a.noise_levels.map(|levels| shown("--noise-levels", levels.to_string())),
        a.shift.map(|shift| shown("--shift", shift.to_string())),
        a.steps.map(|steps| shown("--steps", steps.to_string())),
        a.guidance.map(|guidance| shown("--guidance", guidance.to_string())),
    ];
    progress.line(format!(
        "sampling as the generator's run did: {}",
        settings.into_iter().flatten().collect::<Vec<_>>().join(" ")
    ));
}

fn data_command(command: DataCommand) -> Result<u8> {
    let progress = Progress::new(false);
    let bar = progress.bar(0, "data", "images");
    let show = |done: usize, total: usize| {
        bar.total(total as u64);
        bar.set(done as u64);
    };
    match command {
        DataCommand::Import { from, source, to } => {
            let Imported { manifest, warnings } = data::import::import(from, &source, &to, &show)?;
            warnings.iter().for_each(|text| complain(&format!("warning: {text}")));
            print(&format!(
                "{} images of {} patients are in {}\n",
                manifest.rows.len(),
                manifest.patients().len(),
                to.display()
            ))
        }
        DataCommand::Phantom { patients, size, seed, to } => {
            let spec = experiment::Phantom { patients: patients as usize, size: size as usize, seed };
            data::phantom::write(&spec, &to, &show)?;
            print(&format!(
                "{patients} phantoms are in {} (synecho data import --from camus reads them)\n",
                to.display()
            ))
        }
        DataCommand::Check { folder, json } => {
            let summary = data::check::check(&folder, &show)?;
            if json { print_json(&summary) } else { print(&summary.to_string()) }
        }
    }
}
