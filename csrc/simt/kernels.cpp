#include "simt/kernels.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <tuple>

namespace gpucnn::simt {
namespace {

using Way = std::tuple<const void*, int, std::size_t>;  // kernel, threads, shared_bytes

std::set<Way> launched;
std::mutex noting;

auto as_tuple(const Kernel& kernel) {
  return std::tie(kernel.file, kernel.name);
}

// "void a::(anonymous namespace)::k<x::y, 3>(float*)" as "k<y, 3>".
std::string without_scopes(std::string name) {
  const std::string unnamed = "(anonymous namespace)::";
  for (std::size_t at; (at = name.find(unnamed)) != std::string::npos;) name.erase(at, unnamed.size());
  for (std::size_t at; (at = name.find("::")) != std::string::npos;) {
    std::size_t begin = at;
    while (begin > 0 && (std::isalnum(static_cast<unsigned char>(name[begin - 1])) || name[begin - 1] == '_')) --begin;
    name.erase(begin, at + 2 - begin);
  }
  std::size_t begin = 0, i = 0;
  for (int depth = 0; i < name.size() && (depth > 0 || name[i] != '('); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (depth == 0 && name[i] == ' ') begin = i + 1;  // after the return type
  }
  return name.substr(begin, i - begin);
}

std::string demangled(const char* symbol) {
  int status = 0;
  char* const name = abi::__cxa_demangle(symbol, nullptr, nullptr, &status);
  const std::string text = status == 0 ? name : "";
  std::free(name);
  return text;
}

// The kernels by their offset in the module's file. Symbols of a source that nobody else can see come after its name.
std::multimap<std::uintptr_t, Kernel> read_symbols(const char* path) {
  std::ifstream input(path, std::ios::binary);
  const std::string file{std::istreambuf_iterator<char>(input), std::istreambuf_iterator<char>()};
  std::multimap<std::uintptr_t, Kernel> found;
  if (file.size() < sizeof(Elf64_Ehdr)) return found;
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(file.data());
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(file.data() + header->e_shoff);
  for (const Elf64_Shdr* section = sections; section != sections + header->e_shnum; ++section) {
    if (section->sh_type != SHT_SYMTAB) continue;
    const char* const names = file.data() + sections[section->sh_link].sh_offset;
    const auto* symbol = reinterpret_cast<const Elf64_Sym*>(file.data() + section->sh_offset);
    const auto* const end = symbol + section->sh_size / sizeof(Elf64_Sym);
    std::string source;
    for (; symbol != end; ++symbol) {
      const std::string mangled = names + symbol->st_name;
      const int type = ELF64_ST_TYPE(symbol->st_info);
      if (type == STT_FILE) source = mangled;
      if (type != STT_FUNC || mangled.find("_kernel") == std::string::npos) continue;
      if (mangled.compare(0, 3, "_ZZ") == 0) continue;  // a lambda inside a kernel
      const std::string name = demangled(mangled.c_str());
      if (name.find("gpucnn::") == std::string::npos || name.find("[clone") != std::string::npos) continue;
      const std::string plain = without_scopes(name);
      const std::string base = plain.substr(0, plain.find('<'));
      if (base.size() < 7 || base.compare(base.size() - 7, 7, "_kernel") != 0) continue;
      const bool is_of_one_file = name.find("(anonymous namespace)::") != std::string::npos;
      found.emplace(symbol->st_value, Kernel{is_of_one_file ? source : "", plain});
    }
  }
  return found;
}

struct Module {
  std::uintptr_t begin = 0;
  std::multimap<std::uintptr_t, Kernel> kernels;
};

const Module& this_module() {
  static const Module module = [] {
    Module found;
    Dl_info info{};
    if (dladdr(reinterpret_cast<const void*>(&this_module), &info) && info.dli_fname) {
      found.begin = reinterpret_cast<std::uintptr_t>(info.dli_fbase);
      found.kernels = read_symbols(info.dli_fname);
    }
    return found;
  }();
  return module;
}

}  // namespace

std::vector<Kernel> kernels() {
  std::vector<Kernel> all;
  for (const auto& [offset, kernel] : this_module().kernels) all.push_back(kernel);
  std::sort(all.begin(), all.end(), [](const Kernel& a, const Kernel& b) { return as_tuple(a) < as_tuple(b); });
  return all;
}

Kernel kernel_at(const void* address) {
  const Module& module = this_module();
  const auto found = module.kernels.find(reinterpret_cast<std::uintptr_t>(address) - module.begin);
  return found == module.kernels.end() ? Kernel{} : found->second;
}

std::vector<Launched> take_launched() {
  std::set<Way> taken;
  {
    const std::lock_guard<std::mutex> lock(noting);
    taken.swap(launched);
  }
  const Module& module = this_module();
  std::vector<Launched> all;
  for (const auto& [kernel, threads, shared_bytes] : taken) {
    const auto named = module.kernels.equal_range(reinterpret_cast<std::uintptr_t>(kernel) - module.begin);
    for (auto it = named.first; it != named.second; ++it) all.push_back({it->second, threads, shared_bytes});
  }
  std::sort(all.begin(), all.end(), [](const Launched& a, const Launched& b) {
    return std::tie(a.kernel.file, a.kernel.name, a.threads, a.shared_bytes) <
           std::tie(b.kernel.file, b.kernel.name, b.threads, b.shared_bytes);
  });
  return all;
}

namespace detail {

void note_launched(const LaunchInfo& launch) {
  const std::lock_guard<std::mutex> lock(noting);
  launched.emplace(launch.kernel, static_cast<int>(launch.block.x * launch.block.y * launch.block.z),
                   launch.shared_bytes);
}

}  // namespace detail

}  // namespace gpucnn::simt
