// Smooth activations, backward: dx = f(dy, saved) of smooth.h. Layout, blocks, threads, limits and the bound are those
// of elementwise/map.h.
#include "activation/smooth.h"
#include "elementwise/map.h"

namespace gpucnn {

void add_smooth_gradients(MapFunctions& functions) {
  functions.insert(
      functions.end(),
      {flat<SigmoidGrad>("sigmoid_grad"), flat<TanhGrad>("tanh_grad"), flat<TanhshrinkGrad>("tanhshrink_grad"),
       flat<SoftsignGrad>("softsign_grad"), flat<LogSigmoidGrad>("logsigmoid_grad"),
       flat<SoftplusGrad>("softplus_grad"), flat<HardsigmoidGrad>("hardsigmoid_grad"), flat<SiluGrad>("silu_grad"),
       flat<HardswishGrad>("hardswish_grad"), flat<MishGrad>("mish_grad"), flat<GeluGrad>("gelu_grad"),
       flat<GeluTanhGrad>("gelu_tanh_grad"), walked<GateGrad>("gate_grad")});
}

}  // namespace gpucnn
