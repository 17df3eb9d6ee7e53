//! The defaults, a file and the environment, one over the other, remembering where each setting came from.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use toml::{Table, Value};

use super::ConfigError;

/// The settings with their explanations and defaults.
pub const DEFAULTS: &str = include_str!("../../config.toml");

/// What every variable of ours starts with.
const ENV_PREFIX: &str = "POSTHASTE_";

/// What the defaults cannot tell: settings that are unset by default, and what an empty list holds.
const HINTS: [(&str, Kind); 3] = [
    ("delivery.rate_limit_per_minute", Kind::Whole),
    ("targets.allow_cidrs", Kind::Texts),
    ("targets.ports", Kind::Wholes),
];

/// The fields of a table under `[retry]`, whose name is the user's.
const PRESET_FIELDS: [(&str, Kind); 7] = [
    ("kind", Kind::Text),
    ("retry_count", Kind::Whole),
    ("base_ms", Kind::Whole),
    ("factor", Kind::Number),
    ("max_ms", Kind::Whole),
    ("jitter", Kind::Number),
    ("delays_ms", Kind::Wholes),
];

/// How alike (0 to 1) an unknown name and a known one must be for "did you mean".
const ALIKE: f64 = 0.75;

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File(String),
    Variable(String),
    CommandLine(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(path),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::CommandLine(flag) => f.write_str(flag),
        }
    }
}

/// What a setting holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Whole,
    Number,
    Switch,
    Texts,
    Wholes,
}

impl Kind {
    fn of(default: &Value) -> Self {
        match default {
            Value::Boolean(_) => Self::Switch,
            Value::Integer(_) => Self::Whole,
            Value::Float(_) => Self::Number,
            Value::Array(_) => Self::Texts,
            Value::String(_) | Value::Datetime(_) | Value::Table(_) => Self::Text,
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Whole => "a whole number",
            Self::Number => "a number",
            Self::Switch => "true or false",
            Self::Texts => "a list of texts",
            Self::Wholes => "a list of whole numbers",
        }
    }

    fn holds(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_str(),
            Self::Whole => value.is_integer(),
            Self::Number => value.is_integer() || value.is_float(),
            Self::Switch => value.is_bool(),
            Self::Texts => value.as_array().is_some_and(|items| items.iter().all(Value::is_str)),
            Self::Wholes => value.as_array().is_some_and(|items| items.iter().all(Value::is_integer)),
        }
    }

    /// A variable's value; nothing when it is not of this kind.
    fn parse(self, text: &str) -> Option<Value> {
        match self {
            Self::Text => Some(Value::String(text.to_owned())),
            Self::Whole => text.trim().parse().ok().map(Value::Integer),
            Self::Number => text.trim().parse().ok().map(Value::Float),
            Self::Switch => text.trim().parse().ok().map(Value::Boolean),
            Self::Texts => list(text, Self::Text),
            Self::Wholes => list(text, Self::Whole),
        }
    }
}

fn list(text: &str, of: Kind) -> Option<Value> {
    if text.trim().is_empty() {
        return Some(Value::Array(Vec::new()));
    }
    text.split(',').map(|item| of.parse(item.trim())).collect::<Option<_>>().map(Value::Array)
}

/// Settings with one layer after another put over them.
pub struct Layers {
    settings: Table,
    known: BTreeMap<String, Kind>,
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    pub fn defaults() -> Self {
        // Not a user's text: it is part of the program, and every test parses it.
        let settings: Table = DEFAULTS.parse().expect("the embedded config.toml is TOML");
        let mut known: BTreeMap<String, Kind> = leaves(&settings)
            .into_iter()
            .filter(|(name, _)| !name.starts_with("retry."))
            .map(|(name, default)| (name, Kind::of(default)))
            .collect();
        known.extend(HINTS.map(|(name, kind)| (name.to_owned(), kind)));
        Self { settings, known, origins: BTreeMap::new() }
    }

    /// Puts a file's settings over what is there. A preset is replaced as a whole: half of one and half of another
    /// would be neither.
    pub fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let shown = path.display().to_string();
        let text =
            fs::read_to_string(path).map_err(|error| ConfigError(format!("`{shown}` cannot be read: {error}")))?;
        let table: Table = text.parse().map_err(|error| ConfigError(not_toml(&shown, &text, &error)))?;
        let origin = Origin::File(shown);
        for (name, value) in leaves(&table) {
            self.check(&name, value, &origin)?;
        }
        if let (Some(Value::Table(old)), Some(Value::Table(new))) = (self.settings.get_mut("retry"), table.get("retry"))
        {
            old.retain(|preset, _| !new.contains_key(preset));
        }
        for (name, value) in leaves(&table) {
            self.set(&name, value.clone(), origin.clone());
        }
        Ok(())
    }

    /// Puts the variables that are ours over what is there.
    pub fn add_environment(&mut self, env: impl IntoIterator<Item = (String, String)>) -> Result<(), ConfigError> {
        for (variable, text) in env {
            let Some(rest) = variable.strip_prefix(ENV_PREFIX) else { continue };
            let name = rest.to_ascii_lowercase().replace("__", ".");
            let Some(kind) = self.kind(&name) else {
                match self.unknown_variable(&variable, &name) {
                    Some(error) => return Err(error),
                    None => continue,
                }
            };
            let origin = Origin::Variable(variable);
            match kind.parse(&text) {
                Some(value) => self.set(&name, value, origin),
                None => return Err(ConfigError(format!("`{name}` ({origin}): must be {}", kind.wanted()))),
            }
        }
        Ok(())
    }

    pub fn add_redis_url(&mut self, url: &str) {
        self.set("redis.url", Value::String(url.to_owned()), Origin::CommandLine("--redis"));
    }

    pub fn into_parts(self) -> (Table, BTreeMap<String, Origin>) {
        (self.settings, self.origins)
    }

    fn kind(&self, name: &str) -> Option<Kind> {
        let in_preset = || {
            let (preset, field) = name.strip_prefix("retry.")?.split_once('.')?;
            let (_, kind) = PRESET_FIELDS.iter().find(|(known, _)| *known == field)?;
            (!preset.is_empty()).then_some(*kind)
        };
        self.known.get(name).copied().or_else(in_preset)
    }

    fn check(&self, name: &str, value: &Value, origin: &Origin) -> Result<(), ConfigError> {
        let section = format!("{name}.");
        let is_section = self.known.keys().any(|known| known.starts_with(&section)) || section == "retry.";
        match self.kind(name) {
            Some(kind) if kind.holds(value) => Ok(()),
            Some(kind) => Err(ConfigError(format!("`{name}` ({origin}): must be {}", kind.wanted()))),
            None if is_section && value.is_table() => Ok(()),
            None if is_section => Err(ConfigError(format!("`{name}` ({origin}): is a section of settings, [{name}]"))),
            None => Err(ConfigError(format!("`{name}` ({origin}) is not a setting{}", self.hint(name)))),
        }
    }

    /// Platforms make variables of their own out of a program's name (`POSTHASTE_SERVICE_HOST`): one that does not go
    /// down a level is refused only when it is nearly a setting.
    fn unknown_variable(&self, variable: &str, name: &str) -> Option<ConfigError> {
        let hint = self.nearest(name).map(|known| {
            let known = known.to_ascii_uppercase().replace('.', "__");
            format!("; did you mean {ENV_PREFIX}{known}?")
        });
        (name.contains('.') || hint.is_some()).then(|| {
            ConfigError(format!(
                "`{name}` (environment variable {variable}) is not a setting{}",
                hint.unwrap_or_default()
            ))
        })
    }

    fn hint(&self, name: &str) -> String {
        self.nearest(name).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default()
    }

    fn nearest(&self, name: &str) -> Option<&str> {
        let alike = |known: &&String| strsim::normalized_damerau_levenshtein(known, name);
        let nearest = self.known.keys().max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
        (alike(&nearest) >= ALIKE).then_some(nearest)
    }

    fn set(&mut self, name: &str, value: Value, origin: Origin) {
        let mut parts = name.split('.').collect::<Vec<_>>();
        let Some(last) = parts.pop() else { return };
        let mut table = &mut self.settings;
        for part in parts {
            let inner = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = inner else { return };
            table = inner;
        }
        // An empty section says nothing and must not take away what is there.
        if !(value.is_table() && table.contains_key(last)) {
            table.insert(last.to_owned(), value);
            self.origins.insert(name.to_owned(), origin);
        }
    }
}

/// Every setting of `table` by its dotted name; an empty section counts as one.
fn leaves(table: &Table) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) if !inner.is_empty() => {
                found.extend(leaves(inner).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            _ => found.push((key.clone(), value)),
        }
    }
    found
}

fn not_toml(path: &str, text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    format!("`{path}` is not TOML: line {line}: {}", error.message().replace('\n', ", "))
}
