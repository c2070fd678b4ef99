//! A pickle machine for what `torch.save` writes, protocols 2 to 5. The opcodes are described in CPython's
//! Lib/pickletools.py; those that torch.save does not write are refused by name. No opcode calls anything.

use std::collections::HashMap;

use super::{
    faults::{damaged, shown, unread},
    globals,
    objects::{MOST_OBJECTS, ObjectArena, ObjectId, PickledObject},
    pickle_bytes::ByteSpan,
    rebuild,
    storages::StorageTable,
};
use crate::error::{Error, Result};

/// Marks that are open at once: one for each container that is being filled.
const MOST_MARKS: usize = 1000;

/// The opcodes that are read, by their names in pickletools.
mod opcode {
    pub const PROTO: u8 = 0x80;
    pub const FRAME: u8 = 0x95;
    pub const STOP: u8 = b'.';
    pub const MARK: u8 = b'(';
    pub const POP: u8 = b'0';
    pub const POP_MARK: u8 = b'1';
    pub const NONE: u8 = b'N';
    pub const NEWTRUE: u8 = 0x88;
    pub const NEWFALSE: u8 = 0x89;
    pub const BININT: u8 = b'J';
    pub const BININT1: u8 = b'K';
    pub const BININT2: u8 = b'M';
    pub const LONG1: u8 = 0x8a;
    pub const LONG4: u8 = 0x8b;
    pub const BINFLOAT: u8 = b'G';
    pub const BINSTRING: u8 = b'T';
    pub const SHORT_BINSTRING: u8 = b'U';
    pub const BINUNICODE: u8 = b'X';
    pub const SHORT_BINUNICODE: u8 = 0x8c;
    pub const BINUNICODE8: u8 = 0x8d;
    pub const BINBYTES: u8 = b'B';
    pub const SHORT_BINBYTES: u8 = b'C';
    pub const BINBYTES8: u8 = 0x8e;
    pub const EMPTY_TUPLE: u8 = b')';
    pub const TUPLE1: u8 = 0x85;
    pub const TUPLE2: u8 = 0x86;
    pub const TUPLE3: u8 = 0x87;
    pub const TUPLE: u8 = b't';
    pub const EMPTY_LIST: u8 = b']';
    pub const LIST: u8 = b'l';
    pub const APPEND: u8 = b'a';
    pub const APPENDS: u8 = b'e';
    pub const EMPTY_DICT: u8 = b'}';
    pub const DICT: u8 = b'd';
    pub const SETITEM: u8 = b's';
    pub const SETITEMS: u8 = b'u';
    pub const EMPTY_SET: u8 = 0x8f;
    pub const ADDITEMS: u8 = 0x90;
    pub const BINPUT: u8 = b'q';
    pub const LONG_BINPUT: u8 = b'r';
    pub const MEMOIZE: u8 = 0x94;
    pub const BINGET: u8 = b'h';
    pub const LONG_BINGET: u8 = b'j';
    pub const GLOBAL: u8 = b'c';
    pub const STACK_GLOBAL: u8 = 0x93;
    pub const REDUCE: u8 = b'R';
    pub const NEWOBJ: u8 = 0x81;
    pub const BUILD: u8 = b'b';
    pub const BINPERSID: u8 = b'Q';
}

/// The names of opcodes that pickles may have and that are refused.
const REFUSED: [(u8, &str); 19] = [
    (b'i', "INST"),
    (b'o', "OBJ"),
    (0x92, "NEWOBJ_EX"),
    (b'P', "PERSID"),
    (0x82, "EXT1"),
    (0x83, "EXT2"),
    (0x84, "EXT4"),
    (b'I', "INT"),
    (b'L', "LONG"),
    (b'F', "FLOAT"),
    (b'S', "STRING"),
    (b'V', "UNICODE"),
    (b'2', "DUP"),
    (b'p', "PUT"),
    (b'g', "GET"),
    (0x91, "FROZENSET"),
    (0x96, "BYTEARRAY8"),
    (0x97, "NEXT_BUFFER"),
    (0x98, "READONLY_BUFFER"),
];

/// One pickle while it is read. Several of a file share their objects, and each has a stack and a memo of its own.
pub(super) struct PickleMachine<'a> {
    arena: &'a mut ObjectArena,
    storages: &'a mut StorageTable,
    stack: Vec<ObjectId>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, ObjectId>,
}

impl<'a> PickleMachine<'a> {
    /// Reads the pickle that begins at the arena's bytes, and returns its object.
    ///
    /// # Errors
    /// The pickle is damaged, or asks for anything but tensors and plain containers.
    pub fn read(arena: &'a mut ObjectArena, storages: &'a mut StorageTable) -> Result<ObjectId> {
        let mut machine =
            Self { arena, storages, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        let [first, protocol] = machine.arena.bytes.array()?;
        if first != opcode::PROTO || !(2..=5).contains(&protocol) {
            return Err(damaged("its pickle is not of the protocols 2 to 5"));
        }
        loop {
            let code = machine.arena.bytes.byte()?;
            if code == opcode::STOP {
                break;
            }
            machine.step(code)?;
        }
        let root = machine.pop()?;
        machine.arena.check_nesting(root)?;
        Ok(root)
    }

    fn step(&mut self, code: u8) -> Result<()> {
        use opcode::*;
        match code {
            // A second PROTO does no harm, and frames only say what is to be read at a time.
            PROTO => self.arena.bytes.take(1).map(|_| ()),
            FRAME => self.arena.bytes.take(8).map(|_| ()),
            NONE | NEWTRUE | NEWFALSE | BININT | BININT1 | BININT2 | LONG1 | LONG4 | BINFLOAT => {
                self.number(code)
            }
            BINSTRING | SHORT_BINSTRING | BINUNICODE | SHORT_BINUNICODE | BINUNICODE8 | BINBYTES
            | SHORT_BINBYTES | BINBYTES8 => self.string(code),
            MARK => match self.marks.len() >= MOST_MARKS {
                true => Err(unread(format!("containers nested more than {MOST_MARKS} deep"))),
                false => {
                    self.marks.push(self.stack.len());
                    Ok(())
                }
            },
            POP => self.pop().map(|_| ()),
            POP_MARK => self.pop_mark().map(|_| ()),
            EMPTY_TUPLE | TUPLE1 | TUPLE2 | TUPLE3 | TUPLE => self.tuple(code),
            EMPTY_LIST | LIST | EMPTY_DICT | DICT | EMPTY_SET => self.container(code),
            APPEND | APPENDS | ADDITEMS => self.append(code),
            SETITEM | SETITEMS => self.set_items(code),
            BINPUT | LONG_BINPUT | MEMOIZE | BINGET | LONG_BINGET => self.memory(code),
            GLOBAL | STACK_GLOBAL => self.global(code),
            REDUCE | NEWOBJ | BUILD | BINPERSID => self.construct(code),
            other => Err(self.refused(other)),
        }
    }

    fn refused(&self, code: u8) -> Error {
        let at = self.arena.bytes.position().saturating_sub(1);
        match REFUSED.iter().find(|(refused, _)| *refused == code) {
            Some((_, name)) => unread(format!(
                "the pickle has the opcode {name} at byte {at}, which torch.save does not write"
            )),
            None => {
                damaged(format!("its pickle has the byte {code:#04x} at byte {at}, which is not an opcode"))
            }
        }
    }

    fn push(&mut self, object: PickledObject) -> Result<()> {
        let id = self.arena.add(object)?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: ObjectId) -> Result<()> {
        if self.stack.len() >= MOST_OBJECTS {
            return Err(unread(format!("a pickle of more than {MOST_OBJECTS} objects")));
        }
        self.stack.push(id);
        Ok(())
    }

    /// The topmost object, of those above the last mark.
    fn top(&self) -> Result<ObjectId> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(id) if self.stack.len() > floor => Ok(*id),
            _ => Err(damaged(format!("its pickle misses an object at byte {}", self.arena.bytes.position()))),
        }
    }

    fn pop(&mut self) -> Result<ObjectId> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    /// The objects above the last mark, which goes.
    fn pop_mark(&mut self) -> Result<Vec<ObjectId>> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => Err(damaged(format!("its pickle misses a mark at byte {}", self.arena.bytes.position()))),
        }
    }

    fn number(&mut self, code: u8) -> Result<()> {
        use opcode::*;
        let bytes = &mut self.arena.bytes;
        let object = match code {
            NONE => PickledObject::None,
            NEWTRUE => PickledObject::Bool(true),
            NEWFALSE => PickledObject::Bool(false),
            BININT => PickledObject::Integer(i32::from_le_bytes(bytes.array()?).into()),
            BININT1 => PickledObject::Integer(bytes.byte()?.into()),
            BININT2 => PickledObject::Integer(u16::from_le_bytes(bytes.array()?).into()),
            BINFLOAT => PickledObject::Float(f64::from_be_bytes(bytes.array()?)),
            _ => {
                let length = match code {
                    LONG1 => bytes.byte()?.into(),
                    // Signed in the format.
                    _ => u32::try_from(i32::from_le_bytes(bytes.array()?))
                        .map_err(|_| damaged("its pickle has an int of a negative length"))?,
                };
                let span = bytes.take(length.into())?;
                long(bytes.of(span))
            }
        };
        self.push(object)
    }

    fn string(&mut self, code: u8) -> Result<()> {
        use opcode::*;
        let bytes = &mut self.arena.bytes;
        let length = match code {
            SHORT_BINSTRING | SHORT_BINUNICODE | SHORT_BINBYTES => bytes.byte()?.into(),
            BINSTRING | BINUNICODE | BINBYTES => u32::from_le_bytes(bytes.array()?).into(),
            _ => u64::from_le_bytes(bytes.array()?),
        };
        let span: ByteSpan = bytes.take(length)?;
        let is_text = bytes.text(span).is_some();
        self.push(match code {
            SHORT_BINBYTES | BINBYTES | BINBYTES8 => PickledObject::Bytes(span),
            _ if is_text => PickledObject::Text(span),
            // Python 2 has one type for both.
            BINSTRING | SHORT_BINSTRING => PickledObject::Bytes(span),
            _ => return Err(damaged("its pickle has a text that is not UTF-8")),
        })
    }

    fn tuple(&mut self, code: u8) -> Result<()> {
        use opcode::*;
        let count = match code {
            EMPTY_TUPLE => 0,
            TUPLE1 => 1,
            TUPLE2 => 2,
            TUPLE3 => 3,
            _ => {
                let parts = self.pop_mark()?;
                return self.push(PickledObject::Tuple(parts.into()));
            }
        };
        let mut parts = Vec::with_capacity(count);
        for _ in 0..count {
            parts.push(self.pop()?);
        }
        parts.reverse();
        self.push(PickledObject::Tuple(parts.into()))
    }

    fn container(&mut self, code: u8) -> Result<()> {
        use opcode::*;
        let object = match code {
            EMPTY_LIST => PickledObject::List(Vec::new()),
            EMPTY_SET => PickledObject::Set(Vec::new()),
            LIST => PickledObject::List(self.pop_mark()?),
            DICT => PickledObject::Dict(pairs(&self.pop_mark()?)?),
            _ => PickledObject::Dict(Vec::new()),
        };
        self.push(object)
    }

    fn append(&mut self, code: u8) -> Result<()> {
        let parts = match code {
            opcode::APPEND => vec![self.pop()?],
            _ => self.pop_mark()?,
        };
        let to = self.top()?;
        match (code, self.arena.get_mut(to)) {
            (opcode::ADDITEMS, Some(PickledObject::Set(all))) => all.extend(parts),
            (opcode::APPEND | opcode::APPENDS, Some(PickledObject::List(all))) => all.extend(parts),
            _ => return Err(damaged(format!("its pickle appends to {}", self.arena.word(to)))),
        }
        Ok(())
    }

    fn set_items(&mut self, code: u8) -> Result<()> {
        let added = match code {
            opcode::SETITEM => {
                let value = self.pop()?;
                vec![(self.pop()?, value)]
            }
            _ => pairs(&self.pop_mark()?)?,
        };
        let to = self.top()?;
        match self.arena.get_mut(to) {
            Some(PickledObject::Dict(all)) => all.extend(added),
            _ => return Err(damaged(format!("its pickle sets items of {}", self.arena.word(to)))),
        }
        Ok(())
    }

    fn memory(&mut self, code: u8) -> Result<()> {
        use opcode::*;
        let number = match code {
            BINPUT | BINGET => self.arena.bytes.byte()?.into(),
            LONG_BINPUT | LONG_BINGET => u32::from_le_bytes(self.arena.bytes.array()?),
            _ => self.memo.len() as u32,
        };
        if matches!(code, BINGET | LONG_BINGET) {
            let Some(&id) = self.memo.get(&number) else {
                return Err(damaged(format!("its pickle asks for memo {number}, which it has not set")));
            };
            return self.push_id(id);
        }
        if self.memo.len() >= MOST_OBJECTS {
            return Err(unread(format!("a pickle of more than {MOST_OBJECTS} objects")));
        }
        let id = self.top()?;
        self.memo.insert(number, id);
        Ok(())
    }

    fn global(&mut self, code: u8) -> Result<()> {
        let (module, name) = match code {
            opcode::GLOBAL => {
                let (module, name) = (self.arena.bytes.line()?, self.arena.bytes.line()?);
                (self.arena.bytes.text(module), self.arena.bytes.text(name))
            }
            _ => {
                let (name, module) = (self.pop()?, self.pop()?);
                (self.arena.text(module), self.arena.text(name))
            }
        };
        let (Some(module), Some(name)) = (module, name) else {
            return Err(damaged("its pickle names a class by something else than texts"));
        };
        let found = globals::find(module, name).ok_or_else(|| {
            unread(format!("the pickle names {}, which is not read", shown(&format!("{module}.{name}"))))
        })?;
        self.push(PickledObject::Global(found))
    }

    fn construct(&mut self, code: u8) -> Result<()> {
        let argument = self.pop()?;
        match code {
            opcode::BINPERSID => {
                let slice = rebuild::storage(self.arena, self.storages, argument)?;
                self.push(PickledObject::Storage(slice))
            }
            opcode::BUILD => {
                let object = self.top()?;
                rebuild::build(self.arena, object, argument)
            }
            _ => {
                let class = self.pop()?;
                let made = match code {
                    opcode::REDUCE => rebuild::reduce(self.arena, class, argument)?,
                    _ => rebuild::new_object(self.arena, class, argument)?,
                };
                self.push_id(made)
            }
        }
    }
}

fn pairs(parts: &[ObjectId]) -> Result<Vec<(ObjectId, ObjectId)>> {
    let (pairs, rest) = parts.as_chunks::<2>();
    match rest.is_empty() {
        true => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
        false => Err(damaged("its pickle sets a key without a value")),
    }
}

/// A two's complement of any length, the least significant byte first.
fn long(bytes: &[u8]) -> PickledObject {
    let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    if bytes.len() > wide.len() {
        return PickledObject::LongInteger;
    }
    wide.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    PickledObject::Integer(i64::from_le_bytes(wide))
}
