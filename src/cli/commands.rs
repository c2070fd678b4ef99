//! What each command does, by the modules that know how.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::json;

use super::{
    Command, DataCommand, MeasureCommand, OUT, ReportArgs, SampleArgs, SpecArgs, distances,
    output::{print, print_json},
};
use crate::{
    data, doctor,
    error::{Error, Result},
    execute::{self, Executor, LocalWorkers, RunOptions, RunRequest},
    experiment::{self, ResolvedSpec},
    generate::sample::{self, ControlPicture, SampleOptions},
    measure,
    pipeline::PipelineSource,
    plan::{self, Plan, Stage, StageKind},
    progress::{Progress, complain},
    report,
    store::{Digests, StageStatus, Store},
    train,
    vocabulary::FigureFormat,
};

pub(super) fn carry_out(command: Command) -> Result<u8> {
    match command {
        Command::Run { spec, device, jobs, threads, fail_fast, reports, quiet, checkpoint_every, helper } => {
            let how = RunArgs { device, jobs, threads, fail_fast, reports, quiet, checkpoint_every, helper };
            run(&spec, &how)
        }
        Command::Plan { spec, json } => show_plan(&spec, json),
        Command::Status { spec, set, store, json } => status(spec.as_deref(), &set.sets, &store.store, json),
        Command::Explain { report, cell } => print(&report::lineage::explain(&report, cell.as_deref())?),
        Command::Report(arguments) => redraw(&arguments),
        Command::Doctor { store, json } => {
            let found = doctor::inspect(&store.store);
            if json { print_json(&found) } else { print(&found.to_string()) }
        }
        Command::Sample(arguments) => sample(*arguments),
        Command::Data(command) => data_command(command),
        Command::Measure(MeasureCommand::Dice { truth, prediction, json }) => {
            let found = measure::folder::compare(&truth, &prediction)?;
            if json { print_json(&found) } else { print(&found.to_string()) }
        }
        Command::Measure(MeasureCommand::Fid(arguments)) => distances::fid(&arguments),
        Command::Measure(MeasureCommand::Kid(arguments)) => distances::kid(&arguments),
        Command::Measure(MeasureCommand::Prdc(arguments)) => distances::prdc(&arguments),
        Command::Measure(MeasureCommand::Memorisation(arguments)) => distances::memorisation(&arguments),
        Command::Measure(MeasureCommand::Statistics(arguments)) => distances::statistics(&arguments),
        Command::Measure(MeasureCommand::Texture { real, synthetic, split, json }) => {
            let found = measure::texture::folder::compare_folders(&real, &synthetic, split)?;
            if json { print_json(&found) } else { print(&found.to_string()) }
        }
    }
}

/// A spec with its plan and the store's memory of digests.
struct Asked {
    spec: ResolvedSpec,
    plan: Plan,
    digests: Digests,
}

fn ask(file: &Path, sets: &[String], store: &Path) -> Result<Asked> {
    let spec = experiment::load(file, sets)?;
    let digests = Digests::open(store);
    let outside = execute::outside_digests(&spec, &digests)?;
    Ok(Asked { plan: plan::build(&spec, &outside), spec, digests })
}

/// What the data set tells once it is imported.
fn check_imported(args: &SpecArgs, asked: &Asked, store: &Store) -> Result<()> {
    match execute::imported(&asked.plan, store, &asked.digests) {
        Some(data) => execute::preflight(&asked.spec, Some(&data)).map_err(|e| e.at(&args.spec)),
        None => Ok(()),
    }
}

struct RunArgs {
    device: String,
    jobs: Option<u16>,
    threads: Option<u16>,
    fail_fast: bool,
    reports: PathBuf,
    quiet: bool,
    checkpoint_every: f64,
    helper: bool,
}

fn run(args: &SpecArgs, how: &RunArgs) -> Result<u8> {
    let started = SystemTime::now();
    let device = doctor::choose_device(&how.device)?;
    let shares = execute::share_cores(device, how.jobs, how.threads);
    // The spec before the store: a spec that is wrong leaves nothing behind.
    execute::preflight(&experiment::load(&args.spec, &args.set.sets)?, None).map_err(|e| e.at(&args.spec))?;
    let store = Store::open(&args.store.store)?;
    let asked = ask(&args.spec, &args.set.sets, store.root())?;
    check_imported(args, &asked, &store)?;
    report::is_report(&how.reports.join(&asked.spec.experiment.name))?;
    let executor = match how.helper {
        true => Executor::Worker,
        // A worker runs the same command.
        false => Executor::LocalWorkers(LocalWorkers {
            count: shares.processes - 1,
            arguments: std::env::args_os().skip(1).chain(["--helper".into()]).collect(),
        }),
    };
    let outcome = execute::run(&RunRequest {
        plan: &asked.plan,
        store: &store,
        digests: &asked.digests,
        options: RunOptions {
            device,
            threads: shares.threads,
            checkpoint_every: how.checkpoint_every,
            started,
            fail_fast: how.fail_fast,
            versions: doctor::versions(),
            commit: env!("SYNECHO_COMMIT").to_owned(),
        },
        executor,
        progress: &Progress::new(how.quiet),
    })?;
    if how.helper {
        return Ok(outcome.exit_code());
    }
    for (i, error) in outcome.failures() {
        complain(&format!("error: {}: {error}", asked.plan.stages[i].label));
    }
    if outcome.blocked() > 0 {
        complain(&format!("{} stage(s) were not begun", outcome.blocked()));
    }
    if outcome.exit_code() == 0 {
        let to = how.reports.join(&asked.spec.experiment.name);
        draw(&asked.plan, &store, &FigureFormat::ALL, &to)?;
        let (done, all) = (outcome.done(), asked.plan.stages.len());
        print(&format!(
            "{done} of {all} stages were done now, {} were there; the report is {}\n",
            all - done,
            to.join(report::PAGE).display()
        ))?;
    }
    Ok(outcome.exit_code())
}

/// The command that does what is missing, with what was typed.
fn run_again(spec: &Path, sets: &[String], store: &Path) -> String {
    let mut command = format!("synecho run {}", spec.display());
    for set in sets {
        command += &format!(" --set '{set}'");
    }
    if store != Path::new("runs") {
        command += &format!(" --store {}", store.display());
    }
    command
}

fn report_stage(plan: &Plan) -> Result<&Stage> {
    let found = plan.stages.iter().find(|stage| stage.kind() == StageKind::Report);
    found.ok_or_else(|| Error::failure("the plan has no report"))
}

/// Draws the report of a finished plan where people look for it. The store keeps the data of the report that was there.
fn draw(plan: &Plan, store: &Store, formats: &[FigureFormat], to: &Path) -> Result<()> {
    let stage = report_stage(plan)?;
    let data = store.artifact(stage.kind(), &stage.key);
    if let Some(key) = report::earlier_key(to).filter(|key| *key != stage.key) {
        let earlier = store.artifact(stage.kind(), &key);
        let kept = match !key.is_empty() && earlier.is_dir() {
            true => format!("; `synecho report --from {} --out DIR` draws that one again", earlier.display()),
            false => String::new(),
        };
        complain(&format!("{} held the report of another run, which is replaced{kept}", to.display()));
    }
    report::draw(&report::read(&data)?, formats, to)
}

fn redraw(args: &ReportArgs) -> Result<u8> {
    let drawn = match (&args.from, &args.spec) {
        (Some(from), _) => {
            let to = args.out.as_ref().unwrap_or(from);
            report::draw(&report::read(from)?, &args.formats, to)?;
            to.clone()
        }
        (None, Some(spec)) => redraw_from_store(args, spec)?,
        (None, None) => return Err(Error::input("name a spec, or a report's folder with --from")),
    };
    print(&format!("{}\n", drawn.join(report::PAGE).display()))
}

/// Draws the report of a plan whose stages are all done, and returns its folder.
fn redraw_from_store(args: &ReportArgs, spec: &Path) -> Result<PathBuf> {
    let asked = ask(spec, &args.set.sets, &args.store.store)?;
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
        .help(run_again(spec, &args.set.sets, &args.store.store)));
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
    draw(&asked.plan, &store, &args.formats, &to)?;
    Ok(to)
}

/// `1 h 05 min`, `3 min 20 s`, `12 s`.
fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
    }
}

fn show_plan(args: &SpecArgs, as_json: bool) -> Result<u8> {
    let asked = ask(&args.spec, &args.set.sets, &args.store.store)?;
    execute::preflight(&asked.spec, None).map_err(|e| e.at(&args.spec))?;
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
            let seconds = (!there).then(|| rates.get(&class).map(|rate| rate * units)).flatten();
            (stage, there, seconds)
        })
        .collect();
    asked.digests.save();
    let misses: Vec<_> = rows.iter().filter(|(_, there, _)| !there).collect();
    let known: f64 = misses.iter().filter_map(|(_, _, s)| *s).sum();
    let unknown = misses.iter().filter(|(_, _, s)| s.is_none()).count();
    if as_json {
        let stages: Vec<_> = rows
            .iter()
            .map(|(stage, there, seconds)| {
                json!({
                    "key": stage.key,
                    "kind": stage.kind(),
                    "label": stage.label,
                    "hit": there,
                    "estimated_seconds": seconds,
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
            "without_estimate": unknown,
        }));
    }
    let mut text = format!("{}: {} stages\n", asked.spec.experiment.title, rows.len());
    for (stage, there, seconds) in &rows {
        let state = if *there { "there" } else { "to do" };
        let cost = seconds.map(|s| format!("about {}", duration(s))).unwrap_or_default();
        text += &format!(
            "  {state}  {}  {:<10} {}  {cost}\n",
            &stage.key[..12],
            stage.kind().as_str(),
            stage.label
        );
    }
    text += &match misses.len() {
        0 => "everything is there: a run only looks\n".to_owned(),
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
    print(&text)
}

fn status(file: Option<&Path>, sets: &[String], root: &Path, as_json: bool) -> Result<u8> {
    let store = Store::look(root)?;
    let Some(file) = file else { return store_status(&store, as_json) };
    let asked = ask(file, sets, root)?;
    let rows: Vec<_> = asked
        .plan
        .stages
        .iter()
        .map(|stage| (stage, store.status(stage.kind(), &stage.key), store.failure(stage.kind(), &stage.key)))
        .collect();
    if as_json {
        let stages: Vec<_> = rows
            .iter()
            .map(|(stage, status, failure)| {
                let error = failure.as_ref().filter(|_| *status == StageStatus::Failed).map(|f| &f.error);
                json!({"key": stage.key, "kind": stage.kind(), "label": stage.label, "status": status, "error": error})
            })
            .collect();
        return print_json(&json!({"experiment": asked.spec.experiment.name, "stages": stages}));
    }
    let mut text = String::new();
    for (stage, status, failure) in &rows {
        text += &format!("  {:<11}  {}  {}\n", words(status), &stage.key[..12], stage.label);
        if let Some(failure) = failure.as_ref().filter(|_| *status == StageStatus::Failed) {
            text += &format!("               {}\n", failure.error.replace('\n', "\n               "));
        }
    }
    let count = |wanted: StageStatus| rows.iter().filter(|(_, s, _)| *s == wanted).count();
    text += &format!(
        "{} done, {} running, {} failed, {} interrupted, {} not begun\n",
        count(StageStatus::Done),
        count(StageStatus::Running),
        count(StageStatus::Failed),
        count(StageStatus::Interrupted),
        count(StageStatus::Missing)
    );
    print(&text)
}

fn words(status: &StageStatus) -> &'static str {
    match status {
        StageStatus::Done => "done",
        StageStatus::Running => "running",
        StageStatus::Failed => "failed",
        StageStatus::Interrupted => "interrupted",
        StageStatus::Missing => "not begun",
    }
}

fn store_status(store: &Store, as_json: bool) -> Result<u8> {
    let counts = store.counts()?;
    if as_json {
        return print_json(&counts);
    }
    let mut text = format!("{}\n", store.root().display());
    for count in &counts {
        text += &format!(
            "  {:<9} {} done, {} begun, {:.1} MB\n",
            count.kind.as_str(),
            count.done,
            count.begun,
            count.bytes as f64 / 1e6
        );
    }
    print(&text)
}

fn sample(arguments: SampleArgs) -> Result<u8> {
    let a = arguments;
    let progress = Progress::new(a.quiet);
    let options = SampleOptions {
        source: PipelineSource {
            pipeline: &a.pipeline,
            controlnet: a.controlnet.as_deref(),
            scheduler: a.scheduler,
            levels: a.noise_levels,
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
            (None, mask) => mask.map(ControlPicture::Mask),
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

fn data_command(command: DataCommand) -> Result<u8> {
    let progress = Progress::new(false);
    let bar = progress.bar(0, "data", "images");
    let show = |done: usize, total: usize| {
        bar.total(total as u64);
        bar.set(done as u64);
    };
    match command {
        DataCommand::Import { from, source, to } => {
            let manifest = data::import::import(from, &source, &to, &show)?;
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
