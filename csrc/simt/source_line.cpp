#include "simt/source_line.h"

#include <cstdint>
#include <cstdio>
#include <dlfcn.h>
#include <vector>

namespace gpucnn::simt {
namespace {

// What `addr2line <options> -e <the module> <address>` prints, by line; nothing where it can't.
std::vector<std::string> ask_addr2line(const char* options, const void* address) {
  Dl_info module{};
  if (!dladdr(address, &module) || !module.dli_fname) return {};
  std::string quoted = "'";
  for (const char* c = module.dli_fname; *c; ++c) quoted += *c == '\'' ? std::string("'\\''") : std::string(1, *c);
  char offset[32];
  std::snprintf(offset, sizeof offset, "%#zx",
                static_cast<std::size_t>(reinterpret_cast<std::uintptr_t>(address) -
                                         reinterpret_cast<std::uintptr_t>(module.dli_fbase)));
  // A sanitizer that was preloaded into this process has no business in that one.
  const std::string command =
      "LD_PRELOAD= addr2line " + std::string(options) + " -e " + quoted + "' " + offset + " 2>/dev/null";
  FILE* const output = popen(command.c_str(), "r");
  if (!output) return {};
  std::vector<std::string> lines(1);
  for (int c; (c = std::fgetc(output)) != EOF;) {
    if (c == '\n') {
      lines.emplace_back();
    } else {
      lines.back() += static_cast<char>(c);
    }
  }
  pclose(output);
  lines.pop_back();
  return lines;
}

// "void a::(anonymous namespace)::k<x::y>(float*)" as "k<x::y>".
std::string without_scope(const std::string& name) {
  const auto is_scope = [&](std::size_t i) { return name.compare(i, 21, "(anonymous namespace)") == 0; };
  std::size_t begin = 0, i = 0;
  for (int depth = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (depth > 0) continue;
    if (is_scope(i)) {
      i += 20;
    } else if (name[i] == '(') {
      break;
    } else if (name[i] == ' ' || name[i] == ':') {
      begin = i + 1;
    }
  }
  return name.substr(begin, i - begin);
}

bool is_of_the_layer(const std::string& file) {
  const std::size_t slash = file.rfind('/');
  return slash != std::string::npos && slash >= 4 && file.compare(slash - 4, 4, "simt") == 0 &&
         file.find(".h:") != std::string::npos;
}

}  // namespace

std::string kernel_name(const void* kernel) {
  const std::vector<std::string> lines = ask_addr2line("-f -C", kernel);
  return lines.empty() || lines[0] == "??" ? "(of unknown name)" : without_scope(lines[0]);
}

std::string source_line(const void* return_address) {
  for (std::string line : ask_addr2line("-i", static_cast<const char*>(return_address) - 1)) {
    line = line.substr(0, line.find(" (discriminator"));
    if (line.compare(0, 2, "./") == 0) line.erase(0, 2);  // as Site says it
    if (line.compare(0, 2, "??") != 0 && !is_of_the_layer(line)) return line;
  }
  return "an unknown line";
}

}  // namespace gpucnn::simt
