//! What a guest exports for the host to enter: its callbacks and its allocator, and its memory.
//!
//! Where a module has them is found once, in [`Entries`]: to find dozens of names in each instance costs as much as an
//! instance.

use wasmtime::{Instance, Memory, Module, ModuleExport, Store, TypedFunc, WasmParams, WasmResults};
use weir_abi::{OFFERS_ROOM, callbacks};

use crate::plugin::abi::{Function, Int};
use crate::plugin::vm::Vm;

macro_rules! declare_callbacks {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ident),* $(,)?) -> $ret:ty;)*) => {
        /// The callbacks of a guest, looked up once. One that is not exported is never called.
        #[derive(Clone, Default)]
        pub struct Callbacks {
            $(
                $(#[$doc])*
                pub $name: Option<TypedFunc<($($ty,)*), $ret>>,
            )*
            /// `proxy_on_request_headers` as 0.1 has it.
            pub short_request_headers: Option<TypedFunc<(Int, Int), Int>>,
            /// `proxy_on_response_headers` as 0.1 has it.
            pub short_response_headers: Option<TypedFunc<(Int, Int), Int>>,
        }

        impl Callbacks {
            /// The name of a callback, by where it stands in these.
            pub fn name_of(&self, place: *const ()) -> &'static str {
                $(if std::ptr::from_ref(&self.$name).cast() == place {
                    return stringify!($name);
                })*
                if std::ptr::from_ref(&self.short_request_headers).cast() == place {
                    return SHORT_HEADERS[0].name;
                }
                SHORT_HEADERS[1].name
            }
        }

        /// Where a module exports what the host enters and reads.
        #[derive(Clone)]
        pub struct Entries {
            memory: Option<ModuleExport>,
            allocator: Option<ModuleExport>,
            /// Whether the guest offers room for what it asks for.
            pub offers_room: bool,
            $($name: Option<ModuleExport>,)*
            short_request_headers: Option<ModuleExport>,
            short_response_headers: Option<ModuleExport>,
        }

        impl Entries {
            /// Looks up what a module exports. A wrong signature was refused when it was loaded.
            pub fn of(module: &Module) -> Self {
                let find = |function: &Function| {
                    let fits = module.get_export(function.name).is_some_and(|ty| function.fits(&ty));
                    if fits { module.get_export_index(function.name) } else { None }
                };
                let [request, response] = SHORT_HEADERS.each_ref().map(find);
                // In the order of the fields.
                let mut declared = CALLBACKS.iter().map(find);
                Self {
                    memory: module.get_export_index("memory"),
                    allocator: ALLOCATORS.iter().find_map(find),
                    offers_room: module.get_export(OFFERS_ROOM).is_some(),
                    $($name: declared.next().flatten(),)*
                    short_request_headers: request,
                    short_response_headers: response,
                }
            }

            /// The memory of an instance.
            pub fn memory(&self, instance: &Instance, store: &mut Store<Vm>) -> Option<Memory> {
                instance.get_module_export(store, self.memory.as_ref()?)?.into_memory()
            }

            /// Its allocator.
            pub fn allocator(&self, instance: &Instance, store: &mut Store<Vm>) -> Option<TypedFunc<u32, u32>> {
                typed(instance, store, self.allocator.as_ref())
            }

            /// Its callbacks.
            pub fn callbacks(&self, instance: &Instance, store: &mut Store<Vm>) -> Callbacks {
                Callbacks {
                    $($name: typed(instance, store, self.$name.as_ref()),)*
                    short_request_headers: typed(instance, store, self.short_request_headers.as_ref()),
                    short_response_headers: typed(instance, store, self.short_response_headers.as_ref()),
                }
            }
        }

        /// The callbacks.
        pub const CALLBACKS: &[Function] = &[$(Function {
            name: stringify!($name),
            params: &[$(size_of::<$ty>()),*],
            returns: size_of::<$ret>() > 0,
        },)*];
    };
}

callbacks!(declare_callbacks);

/// What a guest's allocator may be called; the first is the one that counts.
pub const ALLOCATORS: [Function; 2] = [
    Function { name: "malloc", params: &[4], returns: true },
    Function { name: "proxy_on_memory_allocate", params: &[4], returns: true },
];

fn typed<P: WasmParams, R: WasmResults>(
    instance: &Instance,
    store: &mut Store<Vm>,
    entry: Option<&ModuleExport>,
) -> Option<TypedFunc<P, R>> {
    instance.get_module_export(&mut *store, entry?)?.into_func()?.typed(&*store).ok()
}

/// The callbacks that have one parameter less in 0.1.
pub const SHORT_HEADERS: [Function; 2] = [
    Function { name: "proxy_on_request_headers", params: &[4, 4], returns: true },
    Function { name: "proxy_on_response_headers", params: &[4, 4], returns: true },
];
