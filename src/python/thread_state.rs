//! A Python thread as another thread sees it: where it is, and in which context.
//!
//! Everything here holds the GIL from first to last and runs no bytecode, so the other thread stands still meanwhile.

use std::fmt::Write;
use std::ptr::NonNull;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Frames of a stack that are kept, from the innermost out.
const MAX_FRAMES: usize = 128;

/// A thread that ran Python, and may have ended since.
#[derive(Clone, Copy)]
pub(super) struct ThreadState {
    pointer: NonNull<ffi::PyThreadState>,
    /// Never used again, unlike the pointer.
    id: i64,
}

#[expect(unsafe_code, reason = "a pointer that is looked up before it is used")]
// SAFETY: it is compared with the interpreter's own list, and followed only if it is in it and the GIL is held.
unsafe impl Send for ThreadState {}

impl ThreadState {
    /// The calling thread.
    #[expect(unsafe_code, reason = "thread states have no safe binding")]
    pub(super) fn of_this_thread(_attached: Python<'_>) -> Option<Self> {
        // SAFETY: attached, so there is a thread state, and it is valid.
        unsafe {
            let pointer = ffi::PyThreadState_Get();
            let id = ffi::PyThreadState_GetID(pointer);
            Some(Self {
                pointer: NonNull::new(pointer)?,
                id,
            })
        }
    }

    /// Whether the thread is alive.
    #[expect(unsafe_code, reason = "thread states have no safe binding")]
    fn is_alive(self, _attached: Python<'_>) -> bool {
        // SAFETY: attached; thread states leave the list and are freed only by threads that hold the GIL, and a new one is
        // whole before it is in the list.
        unsafe {
            let interpreter = ffi::PyThreadState_GetInterpreter(ffi::PyThreadState_Get());
            let mut state = ffi::PyInterpreterState_ThreadHead(interpreter);
            while !state.is_null() {
                if state == self.pointer.as_ptr() {
                    return ffi::PyThreadState_GetID(state) == self.id;
                }
                state = ffi::PyThreadState_Next(state);
            }
        }
        false
    }

    /// Where the thread is; `None` if it has ended, or runs no Python.
    #[expect(unsafe_code, reason = "frames have no safe binding")]
    pub(super) fn stack(self, py: Python<'_>) -> PyResult<Option<Stack>> {
        if !self.is_alive(py) {
            return Ok(None);
        }
        // SAFETY: attached, and the thread state is valid; a new reference or null without an error.
        let innermost = unsafe {
            Bound::from_owned_ptr_or_opt(
                py,
                ffi::PyThreadState_GetFrame(self.pointer.as_ptr()).cast(),
            )
        };
        innermost.map(|frame| Stack::of(&frame)).transpose()
    }

    /// The `contextvars.Context` that is current in the thread, if any.
    ///
    /// CPython has no function for that; see docs/decisions/0016. On a free-threaded build the thread does not stand still.
    #[cfg(not(Py_GIL_DISABLED))]
    #[expect(unsafe_code, reason = "a field of the thread state")]
    pub(super) fn context(self, py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
        let Some(index) = context_index(py)? else {
            return Ok(None);
        };
        if !self.is_alive(py) {
            return Ok(None);
        }
        // SAFETY: the thread state is valid, and `context_index` found a context at this place of one. What is there is null
        // or a context that the thread state holds a reference to, and the thread cannot let go of it without the GIL.
        let context = unsafe {
            let context = words(self.pointer).add(index).read_volatile();
            Bound::from_borrowed_ptr_or_opt(py, context)
        };
        Ok(context)
    }

    #[cfg(Py_GIL_DISABLED)]
    pub(super) fn context(self, _py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
        Ok(None)
    }
}

/// Words of a `PyThreadState` to look through: its `context` is the 27th or 29th in CPython 3.11 to 3.13, and none of
/// those has fewer than this.
#[cfg(not(Py_GIL_DISABLED))]
const WORDS: usize = 40;

#[cfg(not(Py_GIL_DISABLED))]
fn words(state: NonNull<ffi::PyThreadState>) -> *const *mut ffi::PyObject {
    state.as_ptr().cast()
}

/// Which word of a thread state is its `context`: the one that is a context as long as that is entered. Found once, with two
/// of them.
#[cfg(not(Py_GIL_DISABLED))]
#[expect(unsafe_code, reason = "a field of the thread state")]
fn context_index(py: Python<'_>) -> PyResult<Option<usize>> {
    use pyo3::sync::PyOnceLock;

    static INDEX: PyOnceLock<Option<usize>> = PyOnceLock::new();

    fn places(py: Python<'_>) -> PyResult<Vec<usize>> {
        // SAFETY: attached; a new reference or null with an error set.
        let context = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_New())? };
        // SAFETY: attached; a context that is not entered, entered and left again with nothing in between that could change
        // what is current. The words are those of this thread's own state, which is valid and not shorter.
        unsafe {
            if ffi::PyContext_Enter(context.as_ptr()) != 0 {
                return Err(PyErr::fetch(py));
            }
            let state = NonNull::new(ffi::PyThreadState_Get());
            let places = state.map(|state| {
                (0..WORDS)
                    .filter(|index| words(state).add(*index).read_volatile() == context.as_ptr())
                    .collect()
            });
            if ffi::PyContext_Exit(context.as_ptr()) != 0 {
                return Err(PyErr::fetch(py));
            }
            Ok(places.unwrap_or_default())
        }
    }

    if let Some(index) = INDEX.get(py) {
        return Ok(*index);
    }
    let (first, second) = (places(py)?, places(py)?);
    let index = match first[..] {
        [index] if first == second => Some(index),
        _ => None,
    };
    Ok(*INDEX.get_or_init(py, || index))
}

/// Where a thread is.
pub(super) struct Stack {
    /// The innermost function, as `module.Class.function`.
    pub(super) function: String,
    /// Its file.
    pub(super) file: String,
    /// The line in it.
    pub(super) line: i64,
    /// All of it as `logging` prints one, without source lines: reading those takes files, and gives the GIL up.
    pub(super) text: String,
}

struct Frame {
    name: String,
    file: String,
    line: i64,
}

impl Stack {
    fn of(innermost: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut frames = Vec::new();
        let mut next = Some(innermost.clone());
        while let Some(frame) = next {
            if frames.len() == MAX_FRAMES {
                break;
            }
            frames.push(Frame::of(&frame)?);
            next = back(&frame);
        }
        let mut text = String::from("Stack (most recent call last):");
        for Frame { name, file, line } in frames.iter().rev() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  File \"{file}\", line {line}, in {name}");
        }
        let Frame { file, line, .. } = frames.swap_remove(0);
        Ok(Self {
            function: qualified_name(innermost)?,
            file,
            line,
            text,
        })
    }
}

impl Frame {
    fn of(frame: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = frame.py();
        let code = code(frame)?;
        Ok(Self {
            name: text_of(&code.getattr(pyo3::intern!(py, "co_name"))?)?,
            file: text_of(&code.getattr(pyo3::intern!(py, "co_filename"))?)?,
            line: line(frame),
        })
    }
}

fn qualified_name(frame: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = frame.py();
    let name = text_of(&code(frame)?.getattr(pyo3::intern!(py, "co_qualname"))?)?;
    let module = globals(frame)?
        .get_item(pyo3::intern!(py, "__name__"))?
        .and_then(|module| text_of(&module).ok());
    Ok(match module {
        Some(module) => format!("{module}.{name}"),
        None => name,
    })
}

/// Names and paths may hold what has no UTF-8.
fn text_of(text: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(text
        .cast::<pyo3::types::PyString>()?
        .to_string_lossy()
        .into_owned())
}

#[expect(unsafe_code, reason = "frames have no safe binding")]
fn code<'py>(frame: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached; a frame; a new reference that is never null.
    unsafe {
        let code = ffi::PyFrame_GetCode(frame.as_ptr().cast());
        Bound::from_owned_ptr_or_err(frame.py(), code.cast())
    }
}

#[expect(unsafe_code, reason = "frames have no safe binding")]
fn globals<'py>(frame: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    // SAFETY: attached; a frame; a new reference that is never null.
    let globals = unsafe {
        let globals = ffi::PyFrame_GetGlobals(frame.as_ptr().cast());
        Bound::from_owned_ptr_or_err(frame.py(), globals)?
    };
    Ok(globals.cast_into::<PyDict>()?)
}

#[expect(unsafe_code, reason = "frames have no safe binding")]
fn line(frame: &Bound<'_, PyAny>) -> i64 {
    // SAFETY: attached; a frame.
    i64::from(unsafe { ffi::PyFrame_GetLineNumber(frame.as_ptr().cast()) })
}

#[expect(unsafe_code, reason = "frames have no safe binding")]
fn back<'py>(frame: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    // SAFETY: attached; a frame; a new reference or null without an error.
    unsafe {
        let back = ffi::PyFrame_GetBack(frame.as_ptr().cast());
        Bound::from_owned_ptr_or_opt(frame.py(), back.cast())
    }
}
