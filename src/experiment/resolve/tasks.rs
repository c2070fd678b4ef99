//! `[tasks]`: what the preset leaves to fill in, and what a training cannot be.

use super::{
    super::{
        Budget, Classification, ClassificationSpec, Freeze, Preset, Segmentation, SegmentationSpec,
        TrainingRecipe, TranslateUnit, checkpoints_in,
    },
    Check,
};
use crate::{
    error::Result,
    vocabulary::{MASK_CLASSES, Precision, Task},
};

pub(super) fn segmentation(typed: SegmentationSpec, check: &Check) -> Result<Segmentation> {
    epochs_or_budget(Task::Segmentation, typed.epochs, typed.budget.flatten(), check)?;
    let preset = Segmentation::preset(typed.preset.unwrap_or_default());
    // Channels are those of a network: another one has its own.
    let own = typed.channels.is_some() || typed.model.is_none_or(|model| model == preset.model);
    let task = typed.over(preset);
    let mut task = Segmentation { recipe: task.recipe.budgeted(), ..task };
    if !own || task.channels.is_empty() {
        task.channels = task.model.planned_channels(task.recipe.image_size);
    }
    check_segmentation(&task, check).map(|()| task)
}

pub(super) fn classification(typed: ClassificationSpec, check: &Check) -> Result<Classification> {
    epochs_or_budget(Task::Classification, typed.epochs, typed.budget.flatten(), check)?;
    if typed.preset == Some(Preset::Strong) {
        let help = "write \"corrected\" or \"paper-code\"";
        return Err(check.fault(
            "tasks.classification.preset",
            "\"strong\" is a preset of segmentation",
            help,
        ));
    }
    let preset = Classification::preset(typed.preset.unwrap_or_default());
    let task = typed.over(preset);
    let task = Classification { recipe: task.recipe.budgeted(), ..task };
    check_classification(&task, check).map(|()| task)
}

/// Epochs beside a budget are refused, because they would be ignored. A budget by `--set` takes the place of the
/// file's epochs.
fn epochs_or_budget(task: Task, epochs: Option<usize>, budget: Option<Budget>, check: &Check) -> Result<()> {
    let key = |name: &str| format!("tasks.{task}.{name}");
    let (Some(1..), Some(budget)) = (epochs, budget) else { return Ok(()) };
    if check.origin.sets_within(&key("budget")) && !check.origin.sets_within(&key("epochs")) {
        return Ok(());
    }
    let problem = format!("the budget of {} steps says how long it trains", budget.steps);
    let help = format!("remove `epochs` or `budget`; another budget: --set {}=STEPS", key("budget.steps"));
    Err(check.fault(&key("epochs"), &problem, &help))
}

fn check_recipe(task: Task, recipe: &TrainingRecipe, check: &Check) -> Result<()> {
    let range = |field: &str, value: f64, low: f64, high: f64| {
        check.range(&format!("tasks.{task}.{field}"), value, low, high)
    };
    range("image_size", recipe.image_size as f64, 32.0, 1024.0)?;
    if recipe.precision == Precision::F16 {
        let key = format!("tasks.{task}.precision");
        return Err(check.fault(&key, "tasks are not trained in f16", "use \"f32\" or \"bf16\""));
    }
    match recipe.budget {
        None => range("epochs", recipe.epochs as f64, 1.0, 1e6)?,
        Some(budget) => {
            range("budget.steps", budget.steps as f64, 1.0, 1e8)?;
            range("budget.validate_every", budget.validate_every as f64, 1.0, 1e8)?;
        }
    }
    range("batch_size", recipe.batch_size as f64, 1.0, 4096.0)?;
    range("learning_rate", recipe.learning_rate, 1e-9, 10.0)?;
    range("final_learning_rate", recipe.final_learning_rate, 0.0, 10.0)?;
    range("warmup_steps", recipe.warmup_steps as f64, 0.0, 1e7)?;
    range("validate_every", recipe.validate_every as f64, 1.0, 1e6)?;
    let a = &recipe.augment;
    let pixels = a.translate_unit == TranslateUnit::Pixels;
    range("augment.rotate", a.rotate, 0.0, 180.0)?;
    range("augment.translate", a.translate, 0.0, if pixels { 1024.0 } else { 1.0 })?;
    range("augment.scale", a.scale, 0.0, 0.9)?;
    range("augment.shear", a.shear, 0.0, 80.0)?;
    range("augment.brightness", a.brightness, 0.0, 1.0)?;
    range("augment.contrast", a.contrast, 0.0, 1.0)?;
    range("augment.gamma", a.gamma, 0.0, 2.0)?;
    range("augment.noise", a.noise, 0.0, 1.0)
}

fn check_segmentation(task: &Segmentation, check: &Check) -> Result<()> {
    check_recipe(Task::Segmentation, &task.recipe, check)?;
    let fault = |field: &str, problem: &str, help: &str| {
        Err(check.fault(&format!("tasks.segmentation.{field}"), problem, help))
    };
    if task.class_weights.len() != MASK_CLASSES
        || task.class_weights.iter().any(|w| !w.is_finite() || *w < 0.0)
        || task.class_weights.iter().sum::<f64>() <= 0.0
    {
        return fault(
            "class_weights",
            "four weights are needed, none below 0",
            "background, endocardium, myocardium, atrium: [0.05, 0.25, 0.35, 0.35]",
        );
    }
    if task.channels.len() < 2 || task.channels.iter().any(|c| !(1..=4096).contains(c)) {
        return fault(
            "channels",
            "at least two levels of 1 to 4096 channels are needed",
            "[16, 32, 64, 128]",
        );
    }
    let range = |field: &str, value: f64, low: f64, high: f64| {
        check.range(&format!("tasks.segmentation.{field}"), value, low, high)
    };
    range("weight_decay", task.weight_decay, 0.0, 1.0)?;
    range("clip", task.clip, 0.0, 1e6)?;
    range("ema", task.ema, 0.0, 0.999_999)?;
    let resolutions = task.model.resolutions(task.channels.len());
    if !(1..=resolutions).contains(&task.deep_supervision) {
        return fault(
            "deep_supervision",
            &format!(
                "{} with {} levels can be supervised at 1 to {resolutions} resolutions",
                task.model.label(),
                task.channels.len()
            ),
            "1 supervises the image's own resolution only; the network \"plain-unet\" has several",
        );
    }
    let factor = task.model.size_factor(task.channels.len());
    if !task.recipe.image_size.is_multiple_of(factor) || task.recipe.image_size / factor < 2 {
        return fault(
            "image_size",
            &format!(
                "{} cannot be halved {} times by this network",
                task.recipe.image_size,
                task.channels.len() - 1
            ),
            &format!("use a multiple of {factor} from {} on, or fewer `channels`", factor.saturating_mul(2)),
        );
    }
    Ok(())
}

fn check_classification(task: &Classification, check: &Check) -> Result<()> {
    check_recipe(Task::Classification, &task.recipe, check)?;
    let fault = |field: &str, problem: &str, help: &str| {
        Err(check.fault(&format!("tasks.classification.{field}"), problem, help))
    };
    if task.models.is_empty() {
        return fault("models", "the list is empty", "write models = [\"resnet18\"]");
    }
    for (i, model) in task.models.iter().enumerate() {
        let field = format!("models.{i}");
        if task.models[..i].contains(model) {
            return fault(&field, &format!("{model} is listed twice"), "list each model once");
        }
        let least = model.smallest_side();
        if task.recipe.image_size < least {
            let problem = format!("{} is too small for {model}", task.recipe.image_size);
            return fault("image_size", &problem, &format!("choose a value from {least} to 1024"));
        }
    }
    check.range("tasks.classification.momentum", task.momentum, 0.0, 0.9999)?;
    check.range("tasks.classification.weight_decay", task.weight_decay, 0.0, 1.0)?;
    if task.freeze == Freeze::Exact && task.trainable_parameters == 0 {
        return fault(
            "freeze",
            "\"exact\" has no budget to keep: with trainable_parameters = 0 everything is trained",
            "set trainable_parameters, to 2_000_000 for instance, or leave out freeze",
        );
    }
    if task.weights.is_file() && task.models.len() > 1 {
        let files: Vec<String> = task.models.iter().map(|model| format!("{model}.safetensors")).collect();
        let problem = format!("{} is one file for {} models", task.weights.display(), task.models.len());
        return fault(
            "weights",
            &problem,
            &format!("name a folder that holds {} (or .pth)", files.join(", ")),
        );
    }
    for model in &task.models {
        let Some(file) = task.weights_of(*model).filter(|file| !file.is_file()) else { continue };
        let several = checkpoints_in(&task.weights, *model);
        let names: Vec<String> = several.iter().map(|file| file.display().to_string()).collect();
        let (problem, help) = match names.is_empty() {
            true => (
                format!("{} does not exist", file.display()),
                "name a checkpoint of torchvision's (.pth as downloaded, or .safetensors); leave it out to train from \
                 scratch",
            ),
            false => (
                format!("several files may be {model}'s: {}", names.join(", ")),
                "keep one of them in the folder",
            ),
        };
        check.lacks("tasks.classification.weights", &problem, help);
    }
    Ok(())
}
