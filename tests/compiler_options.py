"""XLA's options for programs that are tested as users compile them."""

# what conftest.py leaves out to compile faster, for what runs long or must be as exact
AS_USERS_DO = {
  "xla_backend_optimization_level": 3,
  "xla_cpu_parallel_codegen_split_count": 32,
  "xla_cpu_use_fusion_emitters": True,
  "xla_llvm_disable_expensive_passes": False,
}
