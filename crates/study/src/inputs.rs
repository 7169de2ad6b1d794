//! What the runs of a study read, known by its content: results of other texts or another start are not reused.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use contaccum_data::{TrainingSet, TrainingSource};
use contaccum_encoder::{Fingerprint, Layout, ModelConfig, ModelFolder, ModelSettings, hash_numbers};
use contaccum_files::ContentHash;
use contaccum_training::{
    TrainConfig, TrainError, data_fingerprint, recorded_fingerprint, run_fingerprint, run_settings, run_shape,
};

use crate::StudyError;
use crate::recipe::Recipe;
use crate::run::StudyRun;

/// The data and the models of a study's runs, each read once.
pub(crate) struct Inputs {
    /// The study trains the start of its cells: it may not be there yet.
    trains_start: bool,
    data: Vec<(TrainingSource, Fingerprint)>,
    models: RefCell<HashMap<String, StartModel>>,
}

/// A model that runs start from.
#[derive(Clone)]
struct StartModel {
    shape: ModelConfig,
    settings: ModelSettings,
    tokenizer: ContentHash,
    weights: ContentHash,
}

impl StartModel {
    fn read(name: &str) -> Result<Self, StudyError> {
        let folder = ModelFolder::locate(name)?;
        let shape = folder.config()?;
        Ok(Self {
            settings: folder.settings()?,
            tokenizer: folder.tokenizer()?.fingerprint(),
            weights: hash_numbers(&folder.weights(&Layout::new(&shape))?),
            shape,
        })
    }
}

impl Inputs {
    /// Opens each source of training rows once: what is missing is told before anything is trained.
    pub fn open(recipe: &Recipe) -> Result<Self, StudyError> {
        let start = recipe.start.iter().map(|start| &start.config);
        let configs = start.chain(recipe.cells.iter().map(|cell| &cell.config));
        let mut inputs =
            Self { trains_start: recipe.start.is_some(), data: Vec::new(), models: RefCell::default() };
        for config in configs {
            let source = config.source().map_err(TrainError::from)?;
            if inputs.data.iter().all(|(known, _)| *known != source) {
                let set = TrainingSet::open_with(&source, config.strict.into()).map_err(TrainError::from)?;
                inputs.data.push((source, data_fingerprint(&set)));
            }
        }
        Ok(inputs)
    }

    /// Refuses a run in whose folder there are results of other texts or of another start.
    pub fn check(&self, run: &StudyRun) -> Result<(), StudyError> {
        let changed = |difference: String| StudyError::Changed {
            run: run.name.clone(),
            folder: run.folder().into(),
            difference,
        };
        let Some(now) = self.fingerprint(&run.config)? else { return Ok(()) };
        let Some(recorded) = recorded_fingerprint(run.folder())? else {
            return Err(changed("no record of its texts and its start".into()));
        };
        match recorded.differences(&now).as_slice() {
            [] => Ok(()),
            differences => {
                let told: Vec<String> = differences.iter().map(ToString::to_string).collect();
                Err(changed(format!("other content: {}", told.join("; "))))
            }
        }
    }

    /// What a run of this configuration is made of now; `None` where its start is still to be trained.
    fn fingerprint(&self, config: &TrainConfig) -> Result<Option<Fingerprint>, StudyError> {
        let source = config.source().map_err(TrainError::from)?;
        let (_, data) = self.data.iter().find(|(known, _)| *known == source).expect("opened with the study");
        let mut models = self.models.borrow_mut();
        let model = match models.get(&config.model) {
            Some(model) => model.clone(),
            None if self.trains_start && !Path::new(&config.model).exists() => return Ok(None),
            None => models.entry(config.model.clone()).or_insert(StartModel::read(&config.model)?).clone(),
        };
        let (shape, settings) = (run_shape(config, model.shape), run_settings(config, model.settings));
        Ok(Some(run_fingerprint(&shape, &settings, model.tokenizer, model.weights, data.clone())))
    }
}
