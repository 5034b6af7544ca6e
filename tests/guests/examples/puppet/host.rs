//! The host functions, called by name with arguments from a script.

use crate::script::{Token, Variables};

// Everything is a number here, so that a script can pass any.
type Int = u32;
type Long = u64;
type Delta = i64;
type Ptr = u32;
type Len = u32;
type OutInt = u32;
type OutLong = u32;
type OutPtr = u32;
type OutLen = u32;

macro_rules! declare {
    ($($(#[$doc:meta])* $topic:ident::$name:ident($($arg:ident: $ty:ident),* $(,)?);)*) => {
        #[allow(dead_code, reason = "which ones are called depends on the contract")]
        #[link(wasm_import_module = "env")]
        unsafe extern "C" {
            $(fn $name($($arg: $ty),*) -> u32;)*
        }

        /// Calls a host function; `None` when this module does not know it.
        pub fn call(name: &str, args: &mut Args<'_>) -> Option<u32> {
            $(if name == stringify!($name) {
                where_supported!($name {
                    $(let $arg: $ty = args.$ty();)*
                    // SAFETY: what the host may read and write is the memory of this module, and the places that are
                    // its results live until they are read. What a script passes beyond that is for the host to refuse.
                    return Some(unsafe { $name($($arg),*) });
                });
            })*
            let _ = args;
            None
        }
    };
}

weir_abi::host_functions!(declare);

/// A place for a result.
enum Slot {
    Int(Box<u32>),
    Long(Box<u64>),
    Bytes(Box<u32>, Box<u32>),
}

/// The arguments of one call, and its results.
pub struct Args<'a> {
    tokens: std::slice::Iter<'a, Token>,
    variables: &'a Variables,
    /// What is passed by address lives as long as the call.
    texts: Vec<Box<[u8]>>,
    slots: Vec<Slot>,
    /// The length that goes with the address that was taken last.
    length: u32,
    length_place: u32,
}

fn address<T: ?Sized>(place: &T) -> u32 {
    std::ptr::from_ref(place).cast::<u8>() as usize as u32
}

#[allow(non_snake_case, reason = "named as the types of the table")]
impl<'a> Args<'a> {
    pub fn new(tokens: &'a [Token], variables: &'a Variables) -> Self {
        let tokens = tokens.iter();
        Self { tokens, variables, texts: Vec::new(), slots: Vec::new(), length: 0, length_place: 0 }
    }

    fn number(&mut self) -> i64 {
        match self.tokens.next() {
            Some(Token::Word(word)) => self.variables.number(word),
            Some(Token::Text(_)) | None => 0,
        }
    }

    /// The places of a result, when the script names them: `@address` or `@address:address`.
    fn named_places(&mut self) -> Option<(u32, u32)> {
        match self.tokens.as_slice().first() {
            Some(Token::Word(word)) if word.starts_with('@') => {
                self.tokens.next();
                let (one, other) = word[1..].split_once(':').unwrap_or((&word[1..], "0"));
                Some((self.variables.number(one) as u32, self.variables.number(other) as u32))
            }
            Some(Token::Word(_) | Token::Text(_)) | None => None,
        }
    }

    fn Int(&mut self) -> u32 {
        self.number() as u32
    }

    fn Long(&mut self) -> u64 {
        self.number() as u64
    }

    fn Delta(&mut self) -> i64 {
        self.number()
    }

    fn Ptr(&mut self) -> u32 {
        if let Some((address, length)) = self.named_places() {
            self.length = length;
            return address;
        }
        let text: Box<[u8]> = match self.tokens.next() {
            Some(Token::Text(bytes)) => bytes.as_slice().into(),
            Some(Token::Word(word)) => word.as_bytes().into(),
            None => Box::default(),
        };
        self.length = text.len() as u32;
        self.texts.push(text);
        self.texts.last().map_or(0, |text| address(&**text))
    }

    fn Len(&mut self) -> u32 {
        self.length
    }

    fn OutInt(&mut self) -> u32 {
        if let Some((address, _)) = self.named_places() {
            return address;
        }
        let place = Box::new(0);
        let at = address(&*place);
        self.slots.push(Slot::Int(place));
        at
    }

    fn OutLong(&mut self) -> u32 {
        if let Some((address, _)) = self.named_places() {
            return address;
        }
        let place = Box::new(0);
        let at = address(&*place);
        self.slots.push(Slot::Long(place));
        at
    }

    fn OutPtr(&mut self) -> u32 {
        if let Some((address, length)) = self.named_places() {
            self.length_place = length;
            return address;
        }
        let (data, length) = (Box::new(0), Box::new(0));
        let at = address(&*data);
        self.length_place = address(&*length);
        self.slots.push(Slot::Bytes(data, length));
        at
    }

    fn OutLen(&mut self) -> u32 {
        self.length_place
    }

    /// The results as text, and the last number among them.
    pub fn results(self) -> (Vec<String>, Option<i64>) {
        let mut last = None;
        let mut shown = Vec::new();
        for slot in self.slots {
            match slot {
                Slot::Int(place) => {
                    // SAFETY: the host may have written there since the compiler last looked.
                    let value = unsafe { std::ptr::read_volatile(&*place) };
                    last = Some(i64::from(value));
                    shown.push(value.to_string());
                }
                Slot::Long(place) => {
                    // SAFETY: as above.
                    let value = unsafe { std::ptr::read_volatile(&*place) };
                    last = Some(value as i64);
                    shown.push(value.to_string());
                }
                Slot::Bytes(data, length) => {
                    // SAFETY: as above. Bytes that the host says are there were allocated by this module.
                    let bytes = unsafe {
                        let (data, length) =
                            (std::ptr::read_volatile(&*data), std::ptr::read_volatile(&*length));
                        match (data, length) {
                            (0, _) | (_, 0) => Vec::new(),
                            (data, length) => {
                                std::slice::from_raw_parts(data as usize as *const u8, length as usize)
                                    .to_vec()
                            }
                        }
                    };
                    shown.push(format!("\"{}\"", bytes.escape_ascii()));
                }
            }
        }
        (shown, last)
    }
}

/// Writes a line to the host's log.
pub fn log(line: &str) {
    // SAFETY: the host reads the line during the call.
    unsafe { proxy_log(2, address(line), line.len() as u32) };
}

/// Bytes of a buffer.
pub fn buffer(kind: u32, length: u32) -> Vec<u8> {
    let variables = Variables::default();
    let mut args = Args::new(&[], &variables);
    let (data, place) = (args.OutPtr(), args.OutLen());
    // SAFETY: the host writes the address and the length to places that live during the call.
    let status = unsafe { proxy_get_buffer_bytes(kind, 0, length, data, place) };
    match args.slots.pop() {
        Some(Slot::Bytes(data, length)) if status == 0 => {
            // SAFETY: the host got the address from this module's allocator, and has written so many bytes there.
            unsafe {
                let (data, length) = (std::ptr::read_volatile(&*data), std::ptr::read_volatile(&*length));
                if data == 0 {
                    return Vec::new();
                }
                std::slice::from_raw_parts(data as usize as *const u8, length as usize).to_vec()
            }
        }
        _ => Vec::new(),
    }
}
