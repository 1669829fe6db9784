//! A pickle machine that runs nothing.
//!
//! PyTorch's files are pickles: small programs that may call any Python function by name. This machine knows the
//! opcodes that PyTorch writes, takes the few functions that make tensors and dictionaries for what they are, and
//! refuses every other name before anything is done with it.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::rc::Rc;
use tch::Kind;

/// Values and memo entries that one pickle may have: hundreds of times what the largest checkpoints do.
const MOST_VALUES: usize = 4_000_000;

/// What a checkpoint can hold.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// `None`, a truth value or a float: of no meaning here.
    Other,
    Int(i64),
    Text(Rc<str>),
    /// A name that is known here.
    Global(Known),
    Storage(Rc<Storage>),
    Tensor(Rc<Strided>),
    /// A container, by its number: as in Python, several may hold the same one.
    Node(usize),
}

/// A container. All lie in one list, so that however deep they lie in each other, freeing them is no recursion.
#[derive(Debug)]
pub(super) enum Node {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// An instance of a TorchScript class: its attributes.
    Object(Option<Value>),
}

/// What a pickle made.
#[derive(Debug)]
pub(super) struct Loaded {
    pub nodes: Vec<Node>,
    pub root: Value,
}

/// Elements of a storage, which lies beside the pickle.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    /// Its name in the archive.
    pub key: Rc<str>,
    /// Of its elements.
    pub kind: Kind,
    /// How many there are.
    pub count: usize,
}

/// A view of a storage.
#[derive(Debug)]
pub(super) struct Strided {
    pub storage: Rc<Storage>,
    pub offset: usize,
    pub size: Vec<i64>,
    pub stride: Vec<i64>,
    /// Elements of the storage from its first to its last, both included.
    pub span: usize,
}

/// Names that are not refused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Known {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Kind),
    /// `torch.Size` and TorchScript's lists: what they are given is what they are.
    Same,
    /// `torch.device`.
    Device,
    ScriptClass,
}

fn known(module: &str, name: &str) -> Result<Known, String> {
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Known::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Known::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Known::RebuildParameter,
        ("torch", "FloatStorage") => Known::Storage(Kind::Float),
        ("torch", "HalfStorage") => Known::Storage(Kind::Half),
        ("torch", "BFloat16Storage") => Known::Storage(Kind::BFloat16),
        ("torch", "DoubleStorage") => Known::Storage(Kind::Double),
        ("torch", "LongStorage") => Known::Storage(Kind::Int64),
        ("torch", "IntStorage") => Known::Storage(Kind::Int),
        ("torch", "ShortStorage") => Known::Storage(Kind::Int16),
        ("torch", "CharStorage") => Known::Storage(Kind::Int8),
        ("torch", "ByteStorage") => Known::Storage(Kind::Uint8),
        ("torch", "BoolStorage") => Known::Storage(Kind::Bool),
        ("torch", "Size") => Known::Same,
        ("torch", "device") => Known::Device,
        ("torch.jit._pickle", list) if list.starts_with("build_") => Known::Same,
        (class, _) if class == "__torch__" || class.starts_with("__torch__.") => Known::ScriptClass,
        _ => {
            return Err(format!(
                "it asks for `{module}.{name}`, which makes no tensor: such a file could run anything, and is refused"
            ));
        }
    })
}

/// Runs a pickle.
///
/// # Errors
/// Why it is refused, for people.
pub(super) fn load(bytes: &[u8]) -> Result<Loaded, String> {
    let mut machine =
        Machine { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: Vec::new(), nodes: Vec::new() };
    loop {
        let opcode = machine.byte()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok(Loaded { nodes: machine.nodes, root });
        }
        machine.step(opcode)?;
        if machine.stack.len().max(machine.nodes.len()) > MOST_VALUES {
            return Err("it has more values than any checkpoint".into());
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: Vec<Option<Value>>,
    nodes: Vec<Node>,
}

type Done = Result<(), String>;

impl Machine<'_> {
    fn step(&mut self, opcode: u8) -> Done {
        match opcode {
            // Protocol and frames: of no meaning to a reader that has the whole file.
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'N' | 0x88 | 0x89 => self.push(Value::Other),
            b'K' => self.number(1, false),
            b'M' => self.number(2, false),
            b'J' => self.number(4, true),
            0x8a => {
                let length = usize::from(self.byte()?);
                self.number(length, true)
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Other)
            }
            b'X' | b'T' => self.text(4),
            0x8c | b'U' => self.text(1),
            b')' => self.make(Node::Tuple(Vec::new())),
            b']' => self.make(Node::List(Vec::new())),
            b'}' => self.make(Node::Dict(Vec::new())),
            b't' => {
                let values = self.since_mark()?;
                self.make(Node::Tuple(values))
            }
            0x85..=0x87 => {
                let from =
                    self.stack.len().checked_sub(usize::from(opcode.saturating_sub(0x84))).ok_or(SHORT)?;
                let values = self.stack.split_off(from);
                self.make(Node::Tuple(values))
            }
            b'a' => {
                let value = self.pop()?;
                self.append(vec![value])
            }
            b'e' => {
                let values = self.since_mark()?;
                self.append(values)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])
            }
            b'u' => {
                let values = self.since_mark()?;
                self.set(values)
            }
            b'q' => {
                let index = usize::from(self.byte()?);
                self.remember(index)
            }
            b'r' => {
                let index = self.length(4)?;
                self.remember(index)
            }
            0x94 => self.remember(self.memo.len()),
            b'h' => {
                let index = usize::from(self.byte()?);
                self.recall(index)
            }
            b'j' => {
                let index = self.length(4)?;
                self.recall(index)
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(known(&module, &name)?))
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.push(Value::Global(known(&module, &name)?)),
                _ => Err("a name that is no text".into()),
            },
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.call(&function, &arguments)
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = storage(self.tuple(&id).ok_or(NO_STORAGE)?)?;
                self.push(storage)
            }
            other => Err(format!(
                "its byte {} is the opcode {other:#04x}, which PyTorch does not write",
                self.at.saturating_sub(1)
            )),
        }
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(count).ok_or(CUT)?;
        let taken = self.bytes.get(self.at..end).ok_or(CUT)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.take(1)?.first().copied().ok_or_else(|| CUT.into())
    }

    /// An unsigned number of `width` bytes.
    fn length(&mut self, width: usize) -> Result<usize, String> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or(CUT)?;
        let line = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(line)
    }

    fn push(&mut self, value: Value) -> Done {
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(|| SHORT.into())
    }

    fn since_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or(SHORT)?;
        Ok(self.stack.split_off(mark))
    }

    fn number(&mut self, width: usize, signed: bool) -> Done {
        let bytes = self.take(width)?;
        let negative = signed && bytes.last().is_some_and(|&byte| byte & 0x80 != 0);
        let mut whole = if negative { [0xff; 8] } else { [0; 8] };
        whole.get_mut(..width).ok_or("a number beyond 64 bits")?.copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(whole)))
    }

    fn text(&mut self, width: usize) -> Done {
        let length = self.length(width)?;
        let text = String::from_utf8_lossy(self.take(length)?).into();
        self.push(Value::Text(text))
    }

    /// A new container on the stack.
    fn make(&mut self, node: Node) -> Done {
        let number = self.nodes.len();
        self.nodes.push(node);
        self.push(Value::Node(number))
    }

    /// The container on top of the stack.
    fn top(&mut self) -> Option<&mut Node> {
        match self.stack.last() {
            Some(Value::Node(number)) => self.nodes.get_mut(*number),
            _ => None,
        }
    }

    fn tuple(&self, value: &Value) -> Option<&[Value]> {
        match value {
            Value::Node(number) => match self.nodes.get(*number)? {
                Node::Tuple(values) => Some(values),
                _ => None,
            },
            _ => None,
        }
    }

    fn append(&mut self, values: Vec<Value>) -> Done {
        match self.top() {
            Some(Node::List(list)) => {
                list.extend(values);
                Ok(())
            }
            _ => Err("something is appended to what is no list".into()),
        }
    }

    fn set(&mut self, values: Vec<Value>) -> Done {
        let Some(Node::Dict(dict)) = self.top() else {
            return Err("an entry is set in what is no dictionary".into());
        };
        let mut values = values.into_iter();
        while let (Some(key), Some(value)) = (values.next(), values.next()) {
            dict.push((key, value));
        }
        Ok(())
    }

    fn remember(&mut self, index: usize) -> Done {
        if index > MOST_VALUES {
            return Err("it remembers more values than any checkpoint".into());
        }
        if self.memo.len() <= index {
            self.memo.resize(index.saturating_add(1), None);
        }
        let top = self.stack.last().ok_or(SHORT)?.clone();
        if let Some(place) = self.memo.get_mut(index) {
            *place = Some(top);
        }
        Ok(())
    }

    fn recall(&mut self, index: usize) -> Done {
        let value = self.memo.get(index).cloned().flatten().ok_or("it recalls what it never had")?;
        self.push(value)
    }

    /// Attributes of an object; of an ordered dictionary, which has some too, they are of no interest.
    fn build(&mut self, state: Value) -> Done {
        if let Some(Value::Tensor(_)) = self.stack.last() {
            return Ok(());
        }
        match self.top() {
            Some(Node::Object(attributes)) => {
                *attributes = Some(state);
                Ok(())
            }
            Some(Node::Dict(_)) => Ok(()),
            _ => Err("a state is given to what has none".into()),
        }
    }

    /// A function, or a class that an instance is made of.
    fn call(&mut self, function: &Value, arguments: &Value) -> Done {
        let (Value::Global(function), Some(arguments)) = (function, self.tuple(arguments)) else {
            return Err("it calls what is no function".into());
        };
        let made = match function {
            Known::OrderedDict => return self.make(Node::Dict(Vec::new())),
            Known::ScriptClass => return self.make(Node::Object(None)),
            Known::RebuildTensor => Value::Tensor(Rc::new(self.strided(arguments)?)),
            Known::RebuildParameter | Known::Same => {
                arguments.first().cloned().ok_or("a function without its argument")?
            }
            Known::Device => Value::Other,
            Known::Storage(_) => return Err("it calls a storage".into()),
        };
        self.push(made)
    }

    fn strided(&self, arguments: &[Value]) -> Result<Strided, String> {
        let [Value::Storage(storage), Value::Int(offset), size, stride, ..] = arguments else {
            return Err("a tensor is not described as PyTorch does".into());
        };
        let numbers = |list: &Value| -> Result<Vec<i64>, String> {
            let number = |value: &Value| match value {
                Value::Int(n) if *n >= 0 => Ok(*n),
                _ => Err("a tensor's size is no number".to_owned()),
            };
            self.tuple(list).ok_or("a tensor's size is no list")?.iter().map(number).collect()
        };
        view(storage, *offset, numbers(size)?, numbers(stride)?)
    }
}

const SHORT: &str = "it takes more values than it has";
const CUT: &str = "it is cut short";

/// A view that lies within its storage.
fn view(storage: &Rc<Storage>, offset: i64, size: Vec<i64>, stride: Vec<i64>) -> Result<Strided, String> {
    let start = usize::try_from(offset).map_err(|_| "a tensor begins before its storage")?;
    if size.len() != stride.len() || size.len() > 16 {
        return Err("a tensor has sizes and strides of different number".into());
    }
    if size.iter().chain(&stride).any(|&n| n < 0) {
        return Err("a tensor has a negative size or stride".into());
    }
    let elements = size.iter().try_fold(1i64, |all, &n| all.checked_mul(n)).ok_or("a tensor too large")?;
    let last = size
        .iter()
        .zip(&stride)
        .try_fold(0i64, |sum, (&n, &step)| sum.checked_add(n.saturating_sub(1).max(0).checked_mul(step)?));
    let span = match elements {
        0 => Some(0),
        _ => last.and_then(|last| usize::try_from(last).ok()?.checked_add(1)),
    };
    let span = span.ok_or("a tensor too large")?;
    // A view of few elements as many would take more memory than the file has.
    let end = start.checked_add(span).ok_or("a tensor too large")?;
    if end > storage.count || elements as u64 > storage.count as u64 {
        return Err("a tensor reaches beyond its storage".into());
    }
    Ok(Strided { storage: storage.clone(), offset: start, size, stride, span })
}

/// `("storage", class, key, device, count)`.
fn storage(parts: &[Value]) -> Result<Value, String> {
    match parts {
        [Value::Text(tag), Value::Global(Known::Storage(kind)), Value::Text(key), _, Value::Int(count)]
            if &**tag == "storage" =>
        {
            let count = usize::try_from(*count).map_err(|_| NO_STORAGE)?;
            Ok(Value::Storage(Rc::new(Storage { key: key.clone(), kind: *kind, count })))
        }
        _ => Err(NO_STORAGE.into()),
    }
}

const NO_STORAGE: &str = "a storage is not described as PyTorch does";
