//! The guest's memory, as host functions use it.

use wasmtime::{AsContextMut, Caller, Extern, Memory};
use weir_abi::Status;

use crate::plugin::abi::Refusal;
use crate::plugin::vm::Vm;

/// A host function's view: the VM's data and the guest's memory.
pub struct Host<'a> {
    caller: Caller<'a, Vm>,
    /// On a fiber, what is given to the guest when the host function has done its work.
    gifts: Option<Vec<Gift>>,
}

/// What is given to the guest, once there is room for it.
struct Gift {
    bytes: Box<[u8]>,
    out_ptr: u32,
    out_len: u32,
    /// Where the guest offers room enough.
    offered: Option<u32>,
    /// What is done should the guest have no room for it.
    undo: Option<Undo>,
}

type Undo = Box<dyn FnOnce(&mut Vm) + Send>;

impl<'a> Host<'a> {
    pub fn new(caller: Caller<'a, Vm>) -> Self {
        Self { caller, gifts: None }
    }

    /// The view of a host function that was called on a fiber.
    pub fn on_fiber(mut caller: Caller<'a, Vm>) -> Self {
        caller.data_mut().take_streams_back();
        Self { caller, gifts: Some(Vec::new()) }
    }

    /// A host function is called.
    #[inline]
    pub fn called(&mut self) {
        if let Some(watch) = &mut self.vm().watch {
            watch.host_calls += 1;
        }
    }

    /// The VM's data.
    pub fn vm(&mut self) -> &mut Vm {
        self.caller.data_mut()
    }

    /// Bytes of the guest, and the VM's data beside them.
    pub fn bytes(&mut self, ptr: u32, len: u32) -> Result<(&[u8], &mut Vm), Status> {
        let (memory, vm) = self.memory()?.data_and_store_mut(&mut self.caller);
        vm.passes(len as usize);
        Ok((slice(memory, ptr, len)?, vm))
    }

    /// Two ranges of bytes of the guest, and the VM's data beside them.
    #[expect(clippy::type_complexity, reason = "a pair of slices and what stands beside them")]
    pub fn two(&mut self, a: (u32, u32), b: (u32, u32)) -> Result<((&[u8], &[u8]), &mut Vm), Status> {
        let (memory, vm) = self.memory()?.data_and_store_mut(&mut self.caller);
        let memory: &[u8] = memory;
        vm.passes(a.1 as usize + b.1 as usize);
        Ok(((slice(memory, a.0, a.1)?, slice(memory, b.0, b.1)?), vm))
    }

    /// Whether a result of `len` bytes has its place: asked before something is done that a guest which does not learn
    /// of it could never undo.
    pub fn check(&mut self, ptr: u32, len: u32) -> Result<(), Status> {
        let (memory, _) = self.memory()?.data_and_store_mut(&mut self.caller);
        slice(memory, ptr, len).map(drop)
    }

    /// Writes bytes into the guest.
    pub fn write(&mut self, ptr: u32, bytes: &[u8]) -> Result<(), Status> {
        let (memory, _) = self.memory()?.data_and_store_mut(&mut self.caller);
        let len = u32::try_from(bytes.len()).map_err(|_| Status::InvalidMemoryAccess)?;
        slice_mut(memory, ptr, len)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Writes a 32-bit number into the guest.
    pub fn write_int(&mut self, ptr: u32, value: u32) -> Result<(), Status> {
        let (memory, _) = self.memory()?.data_and_store_mut(&mut self.caller);
        put(memory, ptr, value.to_le_bytes())
    }

    /// Writes a 64-bit number into the guest.
    pub fn write_long(&mut self, ptr: u32, value: u64) -> Result<(), Status> {
        let (memory, _) = self.memory()?.data_and_store_mut(&mut self.caller);
        put(memory, ptr, value.to_le_bytes())
    }

    /// Has the guest allocate room for `bytes`, unless it offers some, copies them there and writes address and length.
    /// Nothing is allocated for no bytes, and not before the two places are known to be good.
    pub fn give(&mut self, bytes: &[u8], out_ptr: u32, out_len: u32) -> Result<(), Refusal> {
        let (memory, vm) = self.memory()?.data_and_store_mut(&mut self.caller);
        let offered = if vm.offers_room { offered(memory, out_ptr, out_len, bytes.len()) } else { None };
        put(memory, out_ptr, [0; 4])?;
        put(memory, out_len, [0; 4])?;
        if bytes.is_empty() {
            return Ok(());
        }
        let len = u32::try_from(bytes.len()).map_err(|_| Status::InvalidMemoryAccess)?;
        if let Some(gifts) = &mut self.gifts {
            gifts.push(Gift { bytes: bytes.into(), out_ptr, out_len, offered, undo: None });
            return Ok(());
        }
        let at = match offered {
            Some(at) => at,
            None => self.allocate(len)?,
        };
        self.place(bytes, (at, len), out_ptr, out_len)
    }

    /// As [`Host::give`]; `undo` is done should the guest have no room. It is not when that ends the call.
    pub fn give_or(
        &mut self,
        bytes: &[u8],
        out_ptr: u32,
        out_len: u32,
        undo: impl FnOnce(&mut Vm) + Send + 'static,
    ) -> Result<(), Refusal> {
        let before = self.gifts.as_ref().map(Vec::len);
        let given = self.give(bytes, out_ptr, out_len);
        if let Err(Refusal::Status(_)) = given {
            undo(self.vm());
        } else if let Some(gifts) = &mut self.gifts
            && Some(gifts.len()) != before
            && let Some(gift) = gifts.last_mut()
        {
            gift.undo = Some(Box::new(undo));
        }
        given
    }

    /// Gives the guest what it was to be given, on a fiber, where its allocator may give way.
    pub async fn hand_over(&mut self) -> Result<(), Refusal> {
        for Gift { bytes, out_ptr, out_len, offered, undo } in
            self.gifts.replace(Vec::new()).unwrap_or_default()
        {
            let len = u32::try_from(bytes.len()).map_err(|_| Status::InvalidMemoryAccess)?;
            let room = match offered {
                Some(at) => Ok(at),
                None => self.allocate_on_fiber(len).await,
            };
            let given = match room {
                Ok(at) => self.place(&bytes, (at, len), out_ptr, out_len),
                Err(refusal) => Err(refusal),
            };
            if let (Err(Refusal::Status(_)), Some(undo)) = (&given, undo) {
                undo(self.vm());
            }
            given?;
        }
        Ok(())
    }

    fn place(
        &mut self,
        bytes: &[u8],
        (at, len): (u32, u32),
        out_ptr: u32,
        out_len: u32,
    ) -> Result<(), Refusal> {
        let (memory, vm) = self.memory()?.data_and_store_mut(&mut self.caller);
        vm.passes(bytes.len());
        slice_mut(memory, at, len)?.copy_from_slice(bytes);
        put(memory, out_ptr, at.to_le_bytes())?;
        Ok(put(memory, out_len, len.to_le_bytes())?)
    }

    /// As [`Host::allocate`], on a fiber.
    async fn allocate_on_fiber(&mut self, len: u32) -> Result<u32, Refusal> {
        let Some(allocator) = self.vm().allocator.take() else {
            return Err(Status::InternalFailure.into());
        };
        self.vm().allocating = true;
        let at = allocator.call_async(self.caller.as_context_mut(), len).await;
        let vm = self.vm();
        vm.take_streams_back();
        (vm.allocating, vm.allocator) = (false, Some(allocator));
        allocated(at)
    }

    /// Calls the guest's allocator. It runs in the budget of the call that is under way.
    fn allocate(&mut self, len: u32) -> Result<u32, Refusal> {
        // Taken out for the time of the call: a clone would count references, and nothing else may call it now.
        let Some(allocator) = self.vm().allocator.take() else {
            return Err(Status::InternalFailure.into());
        };
        self.vm().allocating = true;
        let at = allocator.call(self.caller.as_context_mut(), len);
        self.vm().allocating = false;
        self.vm().allocator = Some(allocator);
        allocated(at)
    }

    fn memory(&mut self) -> Result<Memory, Status> {
        if let Some(memory) = self.caller.data().memory {
            return Ok(memory);
        }
        // A start function runs before the instance is known.
        match self.caller.get_export("memory") {
            Some(Extern::Memory(memory)) => Ok(memory),
            Some(_) | None => Err(Status::InvalidMemoryAccess),
        }
    }
}

/// Where a guest offers room for more than `len` bytes, by what stands in the places that it will find address and length in. What is
/// no place of its memory is found out by whoever writes there.
fn offered(memory: &[u8], out_ptr: u32, out_len: u32, len: usize) -> Option<u32> {
    let number = |at: u32| Some(u32::from_le_bytes(*memory.get(at as usize..)?.first_chunk()?));
    let (at, room) = (number(out_ptr)?, number(out_len)?);
    (at != 0 && len < room as usize).then_some(at)
}

fn allocated(at: wasmtime::Result<u32>) -> Result<u32, Refusal> {
    match at {
        Ok(0) => Err(Status::InvalidMemoryAccess.into()),
        Ok(at) => Ok(at),
        Err(trap) => Err(Refusal::Trap(trap)),
    }
}

/// A range of memory, checked without overflow.
fn slice(memory: &[u8], ptr: u32, len: u32) -> Result<&[u8], Status> {
    let (start, end) = range(ptr, len)?;
    memory.get(start..end).ok_or(Status::InvalidMemoryAccess)
}

fn slice_mut(memory: &mut [u8], ptr: u32, len: u32) -> Result<&mut [u8], Status> {
    let (start, end) = range(ptr, len)?;
    memory.get_mut(start..end).ok_or(Status::InvalidMemoryAccess)
}

/// Writes a number, whose size is known: no more than a store.
#[inline]
fn put<const LEN: usize>(memory: &mut [u8], ptr: u32, bytes: [u8; LEN]) -> Result<(), Status> {
    let place = memory.get_mut(ptr as usize..).and_then(|rest| rest.first_chunk_mut());
    *place.ok_or(Status::InvalidMemoryAccess)? = bytes;
    Ok(())
}

fn range(ptr: u32, len: u32) -> Result<(usize, usize), Status> {
    let end = ptr.checked_add(len).ok_or(Status::InvalidMemoryAccess)?;
    Ok((ptr as usize, end as usize))
}
