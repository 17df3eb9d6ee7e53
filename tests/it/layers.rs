//! Which module imports which, against the table at the head of `src/lib.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// A row of the table: its modules from left to right, and what they may import besides what a module has inside.
struct Row {
    number: String,
    modules: Vec<String>,
    may_import: String,
}

/// The words between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn table(lib: &str) -> Vec<Row> {
    let lines = lib.lines().filter_map(|line| line.strip_prefix("//! | "));
    lines
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells[0].starts_with(|first: char| first.is_ascii_digit()))
        .map(|cells| Row { number: cells[0].to_owned(), modules: quoted(cells[1]), may_import: cells[2].to_owned() })
        .collect()
}

/// What each module may import, as `rows 0-2, its row's left and `that`` says.
fn allowed(table: &[Row]) -> BTreeMap<String, BTreeSet<String>> {
    let mut allowed = BTreeMap::new();
    for row in table {
        let last = row.may_import.split_once("rows 0-").map(|(_, rest)| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            &rest[..end]
        });
        let whole = match last {
            Some(last) => 1 + table.iter().position(|row| row.number == last).expect("the row is in the table"),
            None => 0,
        };
        let mut known: BTreeSet<String> = table[..whole].iter().flat_map(|row| row.modules.clone()).collect();
        known.extend(quoted(&row.may_import));
        for module in &row.modules {
            allowed.insert(module.clone(), known.clone());
            if row.may_import.contains("its row's left") {
                known.insert(module.clone());
            }
        }
    }
    allowed
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    files.sort();
    files
}

/// The module of the table that a path of modules (`send::post::tls`) lies in: the longest that fits.
fn unit<'t>(path: &str, modules: impl Iterator<Item = &'t String>) -> Option<&'t String> {
    let lies_in =
        |module: &str| path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    modules.filter(|module| lies_in(module)).max_by_key(|module| module.len())
}

/// `src/send/post/mod.rs` is `send::post`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(SOURCE).unwrap().with_extension("");
    let names: Vec<_> = inside.iter().map(|name| name.to_str().unwrap()).filter(|name| *name != "mod").collect();
    names.join("::")
}

/// The paths behind each `crate::`, one for each name in braces.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |code, line| code + line + "\n");
    code.split("crate::").skip(1).flat_map(paths).collect()
}

/// `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(text: &str) -> Vec<String> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    if !rest.starts_with('{') || !(path.is_empty() || path.ends_with("::")) {
        return vec![path.trim_end_matches("::").to_owned()];
    }
    let parts = in_braces(rest);
    parts.into_iter().flat_map(|part| paths(part.trim())).map(|inner| format!("{path}{inner}")).collect()
}

/// The parts between commas of what the first brace encloses.
fn in_braces(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 1, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || depth == 1 && c == ',' {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

#[test]
fn every_module_is_in_the_table() {
    let lib = fs::read_to_string(Path::new(SOURCE).join("lib.rs")).unwrap();
    let declared: BTreeSet<String> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod "))?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    let listed: BTreeSet<String> = table(&lib).iter().flat_map(|row| row.modules.clone()).collect();
    let missing: Vec<_> = declared.difference(&listed).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn no_module_imports_upwards_or_sideways() {
    let lib = fs::read_to_string(Path::new(SOURCE).join("lib.rs")).unwrap();
    let allowed = allowed(&table(&lib));
    let mut wrong = Vec::new();
    for file in sources(Path::new(SOURCE)) {
        let module = module_of(&file);
        if module == "lib" || module == "main" {
            continue;
        }
        let from = unit(&module, allowed.keys()).unwrap_or_else(|| panic!("{module} is not in the table"));
        for import in imports(&fs::read_to_string(&file).unwrap()) {
            let to =
                unit(&import, allowed.keys()).unwrap_or_else(|| panic!("{module} imports {import}, not in the table"));
            if to != from && !allowed[from].contains(to) {
                wrong.push(format!("{module} imports {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "against the table in src/lib.rs:\n{}", wrong.join("\n"));
}

#[test]
fn imports_are_read_from_every_form() {
    let check = |text: &str, expected: &[&str]| {
        assert_eq!(imports(text), expected.iter().map(|path| (*path).to_owned()).collect(), "{text}");
    };
    check("use crate::metrics;", &["metrics"]);
    check("use crate::{\n    a::{self, b::C},\n    d,\n};", &["a::self", "a::b::C", "d"]);
    check("let x = crate::a::b(1);", &["a::b"]);
    check("// crate::a\nuse std::fmt;", &[]);
}
