//! What each method takes: one table, from which come the checks, the OpenRPC document and keyframedctl's help.

use serde_json::{Value, json};

use crate::{codec::kind, error::ErrorObject, message::Params, method::Method, suggest};

/// One parameter of a method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// On the wire.
    pub name: &'static str,
    /// One sentence.
    pub doc: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Whether `null` is allowed: the model's default.
    pub nullable: bool,
    /// Whether the method needs it.
    pub required: bool,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A number in a range, both ends included.
    Number {
        /// Least.
        min: f64,
        /// Most.
        max: f64,
    },
    /// A whole number in a range, both ends included.
    Integer {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Text of at most 4096 bytes, not empty.
    Text,
}

const MAX_TEXT: usize = 4096;

const fn number(name: &'static str, min: f64, max: f64, doc: &'static str) -> Spec {
    Spec { name, doc, kind: Kind::Number { min, max }, nullable: false, required: false }
}

const fn integer(name: &'static str, min: u64, max: u64, doc: &'static str) -> Spec {
    Spec { name, doc, kind: Kind::Integer { min, max }, nullable: false, required: false }
}

const fn text(name: &'static str, doc: &'static str) -> Spec {
    Spec { name, doc, kind: Kind::Text, nullable: false, required: false }
}

/// `null` gives the parameter back to the model.
const fn or_model(spec: Spec) -> Spec {
    Spec { nullable: true, ..spec }
}

const fn needed(spec: Spec) -> Spec {
    Spec { required: true, ..spec }
}

/// Parameters of `params.set`, in the order of [`types::Params`](crate::types::Params).
pub const SETTINGS: &[Spec] = &[
    number("lambda", 0., 1., "Threshold on the mean squared error between pose frames"),
    integer("window_frames", 1, u32::MAX as u64, "Most pose frames between key poses"),
    number("target_key_rate_hz", 0., 1000., "Key frames a second that lambda is steered to; 0: fixed lambda"),
    or_model(integer("steps", 1, 50, "Denoising steps")),
    or_model(number("guidance_scale", 0., 30., "Classifier-free guidance; 1 or less: no second pass")),
    or_model(number("lora_scale", 0., 30., "Share of the LoRA in the weights")),
    or_model(integer("context_frames", 0, 23, "Key frames that a new one sees")),
    integer("seed", 0, u64::MAX, "Seed of the noise"),
    integer("latency_ms", 0, 60_000, "How far the output stays behind the poses, milliseconds"),
    Spec {
        name: "max_quality",
        doc: "Best rung of the quality ladder",
        kind: Kind::Choice(&["film", "warp", "crossfade", "repeat"]),
        nullable: false,
        required: false,
    },
];

const REFERENCE: &[Spec] = &[
    text("name", "A picture that `reference.list` shows"),
    text("path", "A picture file inside the gallery"),
];

const PIPELINE: &[Spec] = &[needed(text("name", "A pipeline that `pipeline.list` shows"))];

/// What `method` takes.
pub fn of(method: Method) -> &'static [Spec] {
    match method {
        Method::ParamsSet => SETTINGS,
        Method::ReferenceSet => REFERENCE,
        Method::PipelineSwitch => PIPELINE,
        _ => &[],
    }
}

/// Checks what a client gave against the table. A whole number written as `2.0` becomes `2`.
///
/// # Errors
/// -32602, naming the parameter and what is allowed, in `data` as well.
pub fn check(method: Method, given: &mut Params) -> Result<(), ErrorObject> {
    let specs = of(method);
    for (name, value) in given.iter_mut() {
        let spec = specs.iter().find(|s| s.name == name).ok_or_else(|| unknown(method, name))?;
        spec.check(value)?;
    }
    if let Some(spec) = specs.iter().find(|s| s.required && !given.contains_key(s.name)) {
        return Err(refuse(
            spec.name,
            format!("`{}` is missing: {}", spec.name, spec.allowed()),
            &spec.allowed(),
        ));
    }
    match method {
        Method::ParamsSet if given.is_empty() => {
            Err(ErrorObject::invalid_params(format!("nothing to set; {} takes {}", method, names(specs))))
        }
        Method::ReferenceSet if given.len() != 1 => {
            Err(ErrorObject::invalid_params("exactly one of `name` and `path` is needed"))
        }
        _ => Ok(()),
    }
}

impl Spec {
    /// What is allowed, in words.
    pub fn allowed(&self) -> String {
        let mut words = match self.kind {
            Kind::Number { min, max } => format!("a number from {min} to {max}"),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Choice(words) => format!("one of {}", quoted(words)),
            Kind::Text => format!("text of 1 to {MAX_TEXT} bytes"),
        };
        if self.nullable {
            words += ", or null for the model's default";
        }
        words
    }

    /// JSON Schema (draft 7) of its values.
    pub fn schema(&self) -> Value {
        let mut schema = match self.kind {
            Kind::Number { min, max } => json!({"type": "number", "minimum": min, "maximum": max}),
            Kind::Integer { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
            Kind::Choice(words) => json!({"type": "string", "enum": words}),
            Kind::Text => json!({"type": "string", "minLength": 1, "maxLength": MAX_TEXT}),
        };
        if self.nullable
            && let Some(kind) = schema.get_mut("type")
        {
            *kind = json!([kind, "null"]);
        }
        schema
    }

    fn check(&self, value: &mut Value) -> Result<(), ErrorObject> {
        if self.nullable && value.is_null() {
            return Ok(());
        }
        if let (Kind::Integer { .. }, Some(n)) = (self.kind, value.as_f64())
            && !value.is_u64()
            && n.fract() == 0.
            && (0. ..=2f64.powi(53)).contains(&n)
        {
            *value = json!(n as u64);
        }
        let fits = match (self.kind, &*value) {
            (Kind::Number { min, max }, Value::Number(n)) => {
                n.as_f64().is_some_and(|n| (min..=max).contains(&n))
            }
            (Kind::Integer { min, max }, Value::Number(n)) => {
                n.as_u64().is_some_and(|n| (min..=max).contains(&n))
            }
            (Kind::Choice(words), Value::String(s)) => words.contains(&s.as_str()),
            (Kind::Text, Value::String(s)) => (1..=MAX_TEXT).contains(&s.len()),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let shown = match &*value {
            Value::String(s) => suggest::shown(s),
            Value::Number(n) => n.to_string(),
            other => kind(other).to_owned(),
        };
        let allowed = self.allowed();
        Err(refuse(self.name, format!("`{}` must be {allowed}, not {shown}", self.name), &allowed))
    }
}

fn refuse(name: &str, why: String, allowed: &str) -> ErrorObject {
    ErrorObject { data: Some(json!({"param": name, "allowed": allowed})), ..ErrorObject::invalid_params(why) }
}

fn unknown(method: Method, name: &str) -> ErrorObject {
    let specs = of(method);
    let shown = suggest::shown(name);
    let why = match suggest::closest(name, specs.iter().map(|s| s.name)) {
        Some(meant) => format!("unknown parameter {shown} of {method}; did you mean `{meant}`?"),
        None if specs.is_empty() => format!("unknown parameter {shown}: {method} takes none"),
        None => format!("unknown parameter {shown}; {method} takes {}", names(specs)),
    };
    refuse(name.get(..name.len().min(80)).unwrap_or("…"), why, &names(specs))
}

fn names(specs: &[Spec]) -> String {
    specs.iter().map(|s| format!("`{}`", s.name)).collect::<Vec<_>>().join(", ")
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", ")
}
