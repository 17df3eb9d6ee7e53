//! `/docs`: the OpenAPI document as a page to read. It is made once, needs no script, and loads nothing.

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderValue, header};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("docs_page.css");
const METHODS: [&str; 4] = ["get", "post", "patch", "delete"];
/// What a schema may say of its values, in words.
const BOUNDS: [(&str, &str); 6] = [
    ("minimum", "at least"),
    ("maximum", "at most"),
    ("minLength", "characters at least"),
    ("maxLength", "characters at most"),
    ("minItems", "items at least"),
    ("maxItems", "items at most"),
];

/// `/docs`, for this document.
pub(super) fn router(document: &Value) -> Router {
    let page = html(document);
    // The only style that may be is the one in the page, by its hash; nothing else may be at all.
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Router::new().route("/docs", get(async move || response(page.clone(), &policy)))
}

fn response(page: String, policy: &str) -> Response {
    let mut response = ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(policy) = HeaderValue::from_str(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn html(document: &Value) -> String {
    let title = escaped(text(&document["info"]["title"]));
    let version = escaped(text(&document["info"]["version"]));
    let about = prose(text(&document["info"]["description"]));
    let groups = groups(document);
    let contents = joined(groups.iter().map(Group::contents));
    let groups = joined(groups.iter().map(|group| group.html(document)));
    let schemas = joined(members(&document["components"]["schemas"]).map(|(name, schema)| named(name, schema)));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title} API</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>{title} API <i>{version}</i></h1>\n{about}\
         <p>For programs: <a href=\"/openapi.json\">openapi.json</a> (OpenAPI 3.1).</p>\n\
         <nav>\n{contents}<p><a href=\"#schemas\">Schemas</a></p>\n</nav>\n{groups}\
         <h2 id=\"schemas\">Schemas</h2>\n{schemas}</body>\n</html>\n"
    )
}

/// The operations under one tag.
struct Group<'d> {
    name: &'d str,
    about: &'d str,
    /// Method, path and operation.
    operations: Vec<(&'static str, &'d str, &'d Value)>,
}

/// In the order of the document's tags.
fn groups(document: &Value) -> Vec<Group<'_>> {
    let all = || {
        members(&document["paths"]).flat_map(|(path, item)| {
            METHODS.iter().filter_map(move |method| Some((*method, path.as_str(), item.get(method)?)))
        })
    };
    items(&document["tags"])
        .map(|tag| {
            let name = text(&tag["name"]);
            let operations = all().filter(|(_, _, operation)| operation["tags"][0] == name).collect();
            Group { name, about: text(&tag["description"]), operations }
        })
        .collect()
}

impl Group<'_> {
    fn anchor(&self) -> String {
        format!("tag-{}", self.name.to_lowercase().replace(' ', "-"))
    }

    fn contents(&self) -> String {
        let links = self.operations.iter().map(|(_, _, operation)| {
            let (id, summary) = (escaped(text(&operation["operationId"])), prose_line(text(&operation["summary"])));
            format!("<li><a href=\"#{id}\">{summary}</a></li>\n")
        });
        let (anchor, name) = (escaped(&self.anchor()), escaped(self.name));
        format!("<p><a href=\"#{anchor}\">{name}</a></p>\n<ul>\n{}</ul>\n", joined(links))
    }

    fn html(&self, document: &Value) -> String {
        let operations = self.operations.iter().map(|(method, path, of)| operation(document, method, path, of));
        let (anchor, name, about) = (escaped(&self.anchor()), escaped(self.name), prose(self.about));
        format!("<h2 id=\"{anchor}\">{name}</h2>\n{about}{}", joined(operations))
    }
}

fn operation(document: &Value, method: &str, path: &str, of: &Value) -> String {
    let (id, method, path) = (escaped(text(&of["operationId"])), method.to_uppercase(), escaped(path));
    let parameters = joined(items(&of["parameters"]).map(parameter));
    let parameters = match parameters.as_str() {
        "" => String::new(),
        list => format!("<details><summary>Parameters</summary><dl>{list}</dl></details>\n"),
    };
    let body = match of.get("requestBody") {
        None => String::new(),
        Some(body) => {
            let must = if body["required"] == true { "" } else { ", may be left out" };
            content(document, &format!("Body{must}"), text(&body["description"]), &body["content"])
        }
    };
    let answers = members(&of["responses"]).map(|(status, answer)| {
        let status = if status == "default" { "Else".to_owned() } else { format!("Answer {}", escaped(status)) };
        content(document, &status, text(&answer["description"]), &answer["content"])
    });
    format!(
        "<section id=\"{id}\">\n<h3><a href=\"#{id}\"><b>{method}</b> <code>{path}</code></a></h3>\n\
         <p>{summary}</p>\n{about}{parameters}{body}{answers}</section>\n",
        summary = prose_line(text(&of["summary"])),
        about = prose(text(&of["description"])),
        answers = joined(answers),
    )
}

fn parameter(parameter: &Value) -> String {
    let place = format!("in {}", text(&parameter["in"]));
    let mut schema = parameter["schema"].clone();
    if let (Some(example), Some(schema)) = (parameter.get("example"), schema.as_object_mut()) {
        schema.insert("example".to_owned(), example.clone());
    }
    let about = text(&parameter["description"]);
    field(text(&parameter["name"]), &[place.as_str()], parameter["required"] == true, about, &schema)
}

/// A body in all its forms.
fn content(document: &Value, what: &str, about: &str, content: &Value) -> String {
    let head = if about.is_empty() { what.to_owned() } else { format!("{what}: {}", prose_line(about)) };
    let forms = joined(members(content).map(|(media, form)| {
        let schema = &form["schema"];
        let fields = match reference(schema) {
            Some(name) => fields(&document["components"]["schemas"][name]),
            None => fields(schema),
        };
        format!("<p><code>{}</code> <i>{}</i></p>{fields}", escaped(media), kind(schema))
    }));
    match forms.as_str() {
        "" => format!("<p>{head}</p>\n"),
        forms => format!("<details><summary>{head}</summary>{forms}</details>\n"),
    }
}

/// A schema that others refer to.
fn named(name: &str, schema: &Value) -> String {
    let (about, kind, name) = (prose(text(&schema["description"])), kind(schema), escaped(name));
    format!(
        "<section id=\"schema-{name}\">\n<h3><a href=\"#schema-{name}\"><code>{name}</code></a></h3>\n\
         {about}<details><summary>{kind}</summary>{}</details></section>\n",
        fields(schema)
    )
}

/// What is inside of a schema: its fields, those of its items, and those of its alternatives.
fn fields(schema: &Value) -> String {
    let required: Vec<&str> = items(&schema["required"]).map(text).collect();
    let own =
        joined(members(&schema["properties"]).map(|(name, inner)| {
            field(name, &[], required.contains(&name.as_str()), text(&inner["description"]), inner)
        }));
    let own = if own.is_empty() { own } else { format!("<dl>{own}</dl>") };
    let parts = ["oneOf", "anyOf", "allOf"].iter().flat_map(|name| items(&schema[*name]));
    own + &joined(parts.chain(schema.get("items")).map(fields))
}

fn field(name: &str, notes: &[&str], is_required: bool, about: &str, schema: &Value) -> String {
    let notes = notes.iter().map(|note| (*note).to_owned());
    let required = is_required.then(|| "required".to_owned());
    let notes = joined(notes.chain(required).chain(bounds(schema)).map(|note| format!(", {}", escaped(&note))));
    format!(
        "<dt><code>{}</code> <i>{}{notes}</i></dt><dd>{}{}</dd>\n",
        escaped(name),
        kind(schema),
        prose(about),
        fields(schema)
    )
}

/// What values a schema allows, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        let name = escaped(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    for (name, between) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " with ")] {
        if schema[name].is_array() {
            return items(&schema[name]).map(kind).collect::<Vec<_>>().join(between);
        }
    }
    if schema["enum"].is_array() {
        return items(&schema["enum"]).map(|value| escaped(&value.to_string())).collect::<Vec<_>>().join(" or ");
    }
    let one = |name: &str| match name {
        "array" if schema["items"].is_object() => format!("array of {}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("object of {}", kind(&schema["additionalProperties"]))
        }
        name => escaped(name),
    };
    match &schema["type"] {
        Value::String(name) => one(name),
        Value::Array(names) => names.iter().map(|name| one(text(name))).collect::<Vec<_>>().join(" or "),
        _ => "any JSON".to_owned(),
    }
}

fn bounds(schema: &Value) -> impl Iterator<Item = String> {
    // That of an unsigned integer says nothing.
    let known = BOUNDS.iter().filter(|(name, _)| !(*name == "minimum" && schema[*name] == 0));
    let told = known.filter_map(|(name, words)| {
        let value = schema.get(name)?;
        Some(if words.starts_with("at ") { format!("{words} {value}") } else { format!("{value} {words}") })
    });
    told.chain(schema.get("example").map(|example| format!("such as {example}")))
}

fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/components/schemas/")
}

/// Paragraphs, with what stands between backticks as code.
fn prose(text: &str) -> String {
    let paragraphs = text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty());
    joined(paragraphs.map(|paragraph| format!("<p>{}</p>\n", prose_line(paragraph))))
}

fn prose_line(text: &str) -> String {
    let parts = text.split('`').enumerate();
    joined(parts.map(|(at, part)| match at % 2 {
        0 => escaped(part),
        _ => format!("<code>{}</code>", escaped(part)),
    }))
}

fn escaped(text: &str) -> String {
    joined(text.chars().map(|c| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\'' => "&#39;".to_owned(),
        c => c.to_string(),
    }))
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_told_in_a_few_words() {
        let check = |schema: Value, expected: &str| {
            let told = joined(std::iter::once(kind(&schema)).chain(bounds(&schema).map(|bound| format!(", {bound}"))));
            assert_eq!(told, expected, "{schema}");
        };
        check(json!({}), "any JSON");
        check(json!({"type": "integer", "minimum": 0, "maximum": 9}), "integer, at most 9");
        check(json!({"type": ["string", "null"], "maxLength": 200}), "string or null, 200 characters at most");
        check(
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            "array of string, 1 items at least",
        );
        check(json!({"type": "object", "additionalProperties": {"type": "string"}}), "object of string");
        check(json!({"type": "string", "enum": ["a", "b"]}), "&quot;a&quot; or &quot;b&quot;");
        let named = "<a href=\"#schema-Retry\">Retry</a>";
        check(json!({"$ref": "#/components/schemas/Retry"}), named);
        let either = json!({"oneOf": [{"$ref": "#/components/schemas/Retry"}, {"type": "null"}]});
        check(either, &format!("{named} or null"));
    }

    #[test]
    fn nothing_in_the_document_can_be_markup() {
        let evil = "<script>alert('x')</script>\"&";
        let document = json!({
            "info": {"title": evil, "version": evil, "description": evil},
            "tags": [{"name": evil, "description": evil}],
            "paths": {evil: {"get": {
                "tags": [evil], "operationId": evil, "summary": evil, "description": evil,
                "parameters": [{"name": evil, "in": evil, "description": evil, "schema": {"type": evil}, "example": evil}],
                "requestBody": {"description": evil, "content": {evil: {"schema": {"type": [evil], "example": evil}}}},
                "responses": {evil: {"description": evil, "content": {}}},
            }}},
            "components": {"schemas": {evil: {
                "description": evil,
                "properties": {evil: {"$ref": format!("#/components/schemas/{evil}"), "enum": [evil]}},
            }}},
        });
        let page = html(&document);
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"));
        assert!(!page.contains(evil) && !page.contains("alert('"));
    }
}
