//! What each standard filter says of its configuration: all of it, so that `weir check` finds every slip, and the same
//! as its page.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value as Json;
use weir::config::problem::Mark;
use weir::config::yaml::{Node, Value};
use weir::plugin::schema::Schema;
use weir_tests::Setup;
use weir_tests::guests::wasm;

use crate::check::{assert_reported, check};
use crate::descriptions::described;

fn names() -> Vec<String> {
    let names = xtask::guests::filters().expect("the filters");
    assert!(names.len() >= 10, "{names:?}");
    names
}

fn file(filter: &str, name: &str) -> (PathBuf, String) {
    let path = xtask::cargo::root().join("filters").join(filter).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (path, text)
}

/// The configurations of a filter in its example: those of the chains, and those of routes.
fn configs(filter: &str, example: &str) -> Vec<Node> {
    fn search(node: &Node, filter: &str, found: &mut Vec<Node>) {
        match &node.value {
            Value::Scalar { .. } => {}
            Value::Sequence(items) => items.iter().for_each(|item| search(item, filter, found)),
            Value::Mapping(entries) => {
                let is_own = node.get("plugin").is_some_and(|plugin| plugin.to_json() == *filter);
                found.extend(node.get("config").filter(|_| is_own).cloned());
                for entry in entries {
                    found.extend(entry.value.get("config").filter(|_| entry.key == filter).cloned());
                    search(&entry.value, filter, found);
                }
            }
        }
    }
    let mut found = Vec::new();
    search(&Node::parse(example).expect("YAML"), filter, &mut found);
    assert!(!found.is_empty(), "{filter} is in its own example");
    found
}

/// The fields in a configuration, whose names the filter gives, with their places.
fn fields(schema: &Json, node: &Node, found: &mut Vec<(String, Mark)>) {
    for choice in schema["anyOf"].as_array().into_iter().flatten() {
        fields(choice, node, found);
    }
    match &node.value {
        Value::Scalar { .. } => {}
        Value::Sequence(items) => items.iter().for_each(|item| fields(&schema["items"], item, found)),
        Value::Mapping(entries) => {
            for entry in entries {
                match schema["properties"].get(&entry.key) {
                    Some(below) => {
                        found.push((entry.key.clone(), entry.key_at));
                        fields(below, &entry.value, found);
                    }
                    None => fields(&schema["additionalProperties"], &entry.value, found),
                }
            }
        }
    }
}

/// A text with the letter at a place there twice.
fn misspelt(text: &str, at: Mark) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let line = &mut lines[at.line - 1];
    let letter = line.as_bytes()[at.column - 1];
    line.insert(at.column - 1, char::from(letter));
    lines.join("\n") + "\n"
}

/// The objects of a schema, whose members have names: the root first.
fn objects<'a>(schema: &'a Json, found: &mut Vec<&'a Json>) {
    if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
        found.push(schema);
        properties.values().for_each(|property| objects(property, found));
    }
    for keyword in ["items", "additionalProperties"] {
        schema.get(keyword).into_iter().for_each(|below| objects(below, found));
    }
    for keyword in ["anyOf", "prefixItems"] {
        schema[keyword].as_array().into_iter().flatten().for_each(|choice| objects(choice, found));
    }
}

fn members(object: &Json) -> BTreeSet<&str> {
    object["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn every_filter_has_a_name_a_version_and_a_schema_in_which_each_field_is_explained() {
    for name in names() {
        let said = described(&name);
        assert_eq!(
            (&said["name"], &said["version"]),
            (&name.as_str().into(), &env!("CARGO_PKG_VERSION").into())
        );
        let mut all = Vec::new();
        objects(&said["config"], &mut all);
        assert!(!all.is_empty(), "{name} has no schema of its configuration");
        for object in all {
            assert_eq!(object["additionalProperties"], false, "{name} takes what it does not know: {object}");
            for (field, schema) in object["properties"].as_object().expect("an object") {
                let explained = schema["description"].as_str().is_some_and(|text| text.ends_with('.'));
                assert!(explained, "{name}: nothing says what `{field}` is, in a sentence: {schema}");
            }
        }
    }
}

#[test]
fn every_example_fits_its_filter_and_each_field_that_is_misspelt_in_it_is_told_at_its_place() {
    for name in names() {
        let (_, example) = file(&name, "example.yaml");
        let (schema, module) = (&described(&name)["config"], wasm(&name));
        let checker = Schema::of(&module).expect("a schema");
        let good = configs(&name, &example);
        for config in &good {
            assert_eq!(checker.mismatches(config), [], "{name}: its own example");
        }
        let mut all = Vec::new();
        good.iter().for_each(|config| fields(schema, config, &mut all));
        assert!(!all.is_empty(), "{name}: its example says something");
        for (field, at) in all {
            let wrong = configs(&name, &misspelt(&example, at));
            let told: Vec<_> = wrong.iter().flat_map(|config| checker.mismatches(config)).collect();
            let hint = format!("did you mean `{field}`?");
            assert!(
                told.iter().any(|mismatch| mismatch.at == at && mismatch.message.ends_with(&hint)),
                "{name}: `{field}` misspelt at {at:?} is told as {told:?}"
            );
        }
    }
}

#[test]
fn a_slip_in_the_configuration_of_any_standard_filter_is_told_by_weir_check_with_file_line_and_column() {
    for name in names() {
        let (_, example) = file(&name, "example.yaml");
        let config = configs(&name, &example).swap_remove(0);
        let mut all = Vec::new();
        fields(&described(&name)["config"], &config, &mut all);
        let (field, at) = all.swap_remove(0);
        // The example names files that are not here; that is told besides. Filters are compiled once, for all runs.
        let cache = xtask::cargo::target().join("parity/cache");
        let plugins = format!("plugins: {{ directory: plugins, cache: {} }}", cache.display());
        let wrong = misspelt(&example, at).replacen("plugins: { directory: plugins }", &plugins, 1);
        let setup = Setup::new().plugin(&name);
        let path = setup.folder().join("weir.yaml");
        std::fs::write(&path, wrong).expect("the folder can be written");
        let (good, report) = check(&path);
        assert!(!good, "{name}: {report}");
        let text =
            format!("plugin `{name}`: unknown field `{}{field}`; did you mean `{field}`?", &field[..1]);
        assert_reported(&report, &path, &format!("{}:{}", at.line, at.column), &text);
    }
}

/// A table of fields on a filter's page: the names, and those that must be there, when the table says that.
struct Table {
    title: String,
    names: BTreeSet<String>,
    mandatory: Option<BTreeSet<String>>,
}

fn tables(page: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut within = false;
    for line in page.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if line.starts_with("| field") {
            within = true;
            let (title, says) = (cells[0].to_owned(), cells.contains(&"default"));
            let mandatory = says.then(BTreeSet::new);
            tables.push(Table { title, names: BTreeSet::new(), mandatory });
        } else if within && line.starts_with("| `") {
            let table = tables.last_mut().expect("a title");
            let name = cells[0].trim_matches('`').to_owned();
            if cells[2] == "mandatory" {
                table.mandatory.as_mut().expect("a column of defaults").insert(name.clone());
            }
            table.names.insert(name);
        } else if !line.starts_with('|') {
            within = false;
        }
    }
    tables
}

#[test]
fn the_tables_on_a_filters_page_have_the_fields_of_its_schema_and_what_must_be_there() {
    for name in names() {
        let (_, page) = file(&name, "README.md");
        let said = described(&name);
        let mut all = Vec::new();
        objects(&said["config"], &mut all);
        let tables = tables(&page);
        assert!(tables.first().is_some_and(|table| table.title == "field"), "{name}: a table of its fields");
        for table in &tables {
            let names: BTreeSet<&str> = table.names.iter().map(String::as_str).collect();
            let object = all.iter().find(|object| members(object) == names);
            let object =
                object.unwrap_or_else(|| panic!("{name}: `{}` is of nothing: {names:?}", table.title));
            if let Some(mandatory) = &table.mandatory {
                let required = object["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
                let mandatory: BTreeSet<&str> = mandatory.iter().map(String::as_str).collect();
                assert_eq!(required.collect::<BTreeSet<_>>(), mandatory, "{name}: `{}`", table.title);
            }
        }
        // Small ones are explained within a sentence.
        for field in all.iter().flat_map(|object| members(object)) {
            let shown = [format!("`{field}`"), format!("`{field}:")].iter().any(|word| page.contains(word));
            assert!(shown, "{name}: its page does not know `{field}`");
        }
    }
}

/// The row of a filter in the table of all filters, cell by cell.
fn row(page: &str, filter: &str) -> Vec<String> {
    let begin = format!("| [{filter}]({filter}) |");
    let row = page.lines().find(|line| line.starts_with(&begin));
    let row = row.unwrap_or_else(|| panic!("{filter} has no row in filters/README.md"));
    row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn the_sizes_in_the_table_of_filters_are_those_of_their_builds() {
    let page = std::fs::read_to_string(xtask::cargo::root().join("filters/README.md"))
        .expect("the table of filters");
    for name in names() {
        let module = wasm(&name);
        let payloads = wasmparser::Parser::new(0).parse_all(&module);
        let names: usize = payloads
            .filter_map(|payload| match payload.expect("a module") {
                wasmparser::Payload::CustomSection(section) if section.name() == "name" => {
                    Some(section.range().len())
                }
                _ => None,
            })
            .sum();
        assert!(names > 0, "{name} has the names of its functions, for backtraces");
        let sizes = row(&page, &name)[4].replace(" KiB", "");
        let (all, stripped) =
            sizes.split_once(", ").unwrap_or_else(|| panic!("{name}: two sizes, not {sizes}"));
        for (written, bytes) in [(all, module.len()), (stripped, module.len() - names)] {
            let written: f64 = written.parse().unwrap_or_else(|_| panic!("{name}: `{written}` is no size"));
            let there = bytes as f64 / 1024.0;
            // Another compiler may write a little more or less.
            assert!(
                (written - there).abs() < there / 20.0,
                "{name}: {written} KiB are written down, {there:.0} there"
            );
        }
    }
}
