//! Makes the `Py_3_12` family of `cfg` known: some workarounds are for old interpreters only.

fn main() {
    #[cfg(feature = "python")]
    pyo3_build_config::use_pyo3_cfgs();
}
