//! `[scheduling]` of a profile: what is read of its servers, and where.

use serde::Deserialize;

use crate::providers::file::OneOrMore;

/// Most names of metrics for one value.
const NAMES_MAX: usize = 8;

/// Most steps of a path into a document.
const STEPS_MAX: usize = 8;

/// What a kind of server tells about models in memory and requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchedulingSources {
    /// Which models are in memory; `None`: all, while the server is healthy.
    pub memory: Option<MemorySource>,
    /// How many requests run and wait in it.
    pub page: Option<PageSource>,
    /// How many requests it can work on at a time.
    pub slots: Option<SlotsSource>,
}

/// `[scheduling.warmth]`: a list of models with their states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemorySource {
    /// Where the list is.
    pub path: String,
    /// The field of the list.
    pub list: String,
    /// The fields of an item that may hold the model's name; the first that is there counts.
    pub names: Vec<String>,
    /// The path to the state in an item; `None`: what is listed is in memory.
    pub state: Option<String>,
    /// The states of a model in memory.
    pub warm: Vec<String>,
    /// The states of a model on its way there. All others mean that it is in neither.
    pub loading: Vec<String>,
    /// The field of an item with the time at which the model leaves the memory.
    pub expires: Option<String>,
    /// The field of an item with the context that the model was started with, in tokens.
    pub context: Option<String>,
}

/// `[scheduling.metrics]`: a page in Prometheus' text format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageSource {
    /// Where the page is.
    pub path: String,
    /// Names of the metric of running requests; the first that is there counts.
    pub running: Vec<String>,
    /// Names of the metric of waiting requests; the first that is there counts.
    pub waiting: Vec<String>,
}

/// `[scheduling.slots]`: a document with the properties of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotsSource {
    /// Where the document is.
    pub path: String,
    /// The path to the number of requests that it works on at a time.
    pub slots: String,
    /// The path to the context of one of them, in tokens.
    pub context: Option<String>,
}

/// `[scheduling]` as a profile file has it.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(in crate::providers) struct RawSources {
    warmth: Option<RawMemory>,
    metrics: Option<RawPage>,
    slots: Option<RawSlots>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawMemory {
    path: String,
    list: String,
    name: OneOrMore,
    state: String,
    warm: OneOrMore,
    loading: OneOrMore,
    expires_at: String,
    context: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPage {
    path: String,
    running: OneOrMore,
    waiting: OneOrMore,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawSlots {
    path: String,
    slots: String,
    context: String,
}

impl RawSources {
    /// The usable sources; `ignored` gets the others, with the reasons.
    pub(in crate::providers) fn checked(self, ignored: &mut Vec<String>) -> SchedulingSources {
        let mut usable = |name: &str, wrong: Option<&str>| {
            if let Some(wrong) = wrong {
                ignored.push(format!("scheduling.{name}: {wrong}; the table is ignored"));
            }
            wrong.is_none()
        };
        let memory = self.warmth.map(RawMemory::source);
        let page = self.metrics.map(RawPage::source);
        let slots = self.slots.map(RawSlots::source);
        SchedulingSources {
            memory: memory.filter(|memory| usable("warmth", memory.wrong())),
            page: page.filter(|page| usable("metrics", page.wrong())),
            slots: slots.filter(|slots| usable("slots", slots.wrong())),
        }
    }
}

impl RawMemory {
    fn source(self) -> MemorySource {
        MemorySource {
            path: self.path,
            list: self.list,
            names: texts(self.name),
            state: text(self.state),
            warm: texts(self.warm),
            loading: texts(self.loading),
            expires: text(self.expires_at),
            context: text(self.context),
        }
    }
}

impl RawPage {
    fn source(self) -> PageSource {
        PageSource {
            path: self.path,
            running: texts(self.running),
            waiting: texts(self.waiting),
        }
    }
}

impl RawSlots {
    fn source(self) -> SlotsSource {
        SlotsSource {
            path: self.path,
            slots: self.slots,
            context: text(self.context),
        }
    }
}

const NO_PATH: &str = "path: expected the path of the document, got none";

impl MemorySource {
    fn wrong(&self) -> Option<&'static str> {
        let is_long = |path: &Option<String>| path.as_deref().is_some_and(|path| !is_path(path));
        if self.path.trim().is_empty() {
            Some(NO_PATH)
        } else if self.list.is_empty() {
            Some("list: expected the field of the list of models, got none")
        } else if self.names.is_empty() {
            Some("name: expected the field of a model's name, got none")
        } else if is_long(&self.state) || is_long(&self.context) {
            Some("state, context: expected a path such as status.value")
        } else if self.state.is_some() && self.warm.is_empty() {
            Some("warm: expected the states of a model in memory, got none")
        } else {
            None
        }
    }
}

impl PageSource {
    fn wrong(&self) -> Option<&'static str> {
        let is_list = |names: &[String]| (1..=NAMES_MAX).contains(&names.len());
        if self.path.trim().is_empty() {
            Some(NO_PATH)
        } else if !is_list(&self.running) || !is_list(&self.waiting) {
            Some("running, waiting: expected one to eight names of metrics each")
        } else {
            None
        }
    }
}

impl SlotsSource {
    fn wrong(&self) -> Option<&'static str> {
        let paths = [Some(&self.slots), self.context.as_ref()];
        if self.path.trim().is_empty() {
            Some(NO_PATH)
        } else if !paths.into_iter().flatten().all(|path| is_path(path)) {
            Some("slots, context: expected a path such as settings.n_ctx")
        } else {
            None
        }
    }
}

/// Whether a text is a path of a bounded number of names.
fn is_path(text: &str) -> bool {
    let mut steps = 0;
    text.split('.').all(|step| {
        steps += 1;
        !step.is_empty() && steps <= STEPS_MAX
    })
}

fn text(text: String) -> Option<String> {
    (!text.trim().is_empty()).then_some(text)
}

fn texts(texts: OneOrMore) -> Vec<String> {
    let texts = Vec::from(texts).into_iter();
    texts.filter_map(text).collect()
}
