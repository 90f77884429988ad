// Smooth activations, forward: y = f(x) of smooth.h. Layout, blocks, threads, limits and the bound are those of
// elementwise/map.h.
#include "activation/smooth.h"
#include "elementwise/map.h"

namespace gpucnn {

void add_smooth(MapFunctions& functions) {
  functions.insert(functions.end(),
                   {flat<Sigmoid>("sigmoid"), flat<Tanh>("tanh"), flat<Tanhshrink>("tanhshrink"),
                    flat<Softsign>("softsign"), flat<LogSigmoid>("logsigmoid"), flat<Softplus>("softplus"),
                    flat<Hardsigmoid>("hardsigmoid"), flat<Silu>("silu"), flat<Hardswish>("hardswish"),
                    flat<Mish>("mish"), flat<Gelu>("gelu"), flat<GeluTanh>("gelu_tanh"), walked<Gated>("glu")});
}

}  // namespace gpucnn
