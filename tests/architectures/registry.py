"""Small models of known architectures, with random weights and inputs of their own kind."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["ARCHITECTURES", "Architecture", "Case"]

N, LENGTH, WIDTH, CLASSES = 4, 6, 16, 3


class Case(NamedTuple):
    """One model with examples."""

    model: nn.Module  #: returns logits, (N, C)
    inputs: Any
    arguments: Any = None  #: additional_forward_args
    feature_mask: Any = None
    k: int = 4


class Architecture(NamedTuple):
    """An architecture with the library that defines it."""

    modality: str
    library: str
    build: Callable[[], Case]


class Logits(nn.Module):
    """A model of transformers as a function of one float tensor, given by its keyword."""

    def __init__(self, model: nn.Module, keyword: str, masked: bool = False) -> None:
        super().__init__()
        self.model, self.keyword, self.masked = model, keyword, masked

    def forward(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the logits."""
        masks = {"attention_mask": attention_mask} if self.masked else {}
        return self.model(**{self.keyword: inputs}, **masks).logits


def _of_transformers(kind: str, task: str, **configuration: Any) -> nn.Module:
    library = importlib.import_module("transformers")
    config = getattr(library, f"{kind}Config")(num_labels=CLASSES, **configuration)
    return getattr(library, f"{kind}For{task}")(config).eval()


def _text(kind: str, **configuration: Any) -> Callable[[], Case]:
    def build() -> Case:
        model = _of_transformers(kind, "SequenceClassification", vocab_size=50, **configuration)
        table = model.get_input_embeddings().weight.detach()
        ids, attention_mask = torch.randint(2, 50, (N, LENGTH)), torch.ones(N, LENGTH).long()
        attention_mask[0, -2:] = 0
        words = torch.arange(LENGTH)[:, None].expand(LENGTH, table.shape[1])
        wrapped = Logits(model, "inputs_embeds", masked=True)
        return Case(wrapped, table[ids], (attention_mask,), words, 2)

    return build


def _settled(model: nn.Module, inputs: Tensor) -> nn.Module:
    """Give batch normalisation statistics, without which the output of a deep network vanishes."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(pixel_values=inputs)
    return model.eval()


def _image(kind: str, size: int = 32, **configuration: Any) -> Callable[[], Case]:
    def build() -> Case:
        model = _of_transformers(kind, "ImageClassification", **configuration)
        pixels = torch.arange(size * size).reshape(1, size, size).expand(3, -1, -1)
        images = torch.rand(N, 3, size, size)
        return Case(Logits(_settled(model, images), "pixel_values"), images, None, pixels, 8)

    return build


def _table(build_model: Callable[[Any], nn.Module]) -> Callable[[], Case]:
    def build() -> Case:
        library = importlib.import_module("rtdl_revisiting_models")
        return Case(build_model(library).eval(), torch.randn(N, 10))

    return build


class _WithoutCategories(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs, None)


def _graph(layer: str) -> Callable[[], Case]:
    def build() -> Case:
        geometric = importlib.import_module("torch_geometric")
        nets = importlib.import_module("torch_geometric.nn")
        graphs = importlib.import_module("captum_robust.graph")

        class Classifier(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = getattr(nets, layer)(5, 16, 2, act="elu")
                self.head = nn.Linear(16, CLASSES)

            def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
                hidden = self.body(x, edge_index)
                return self.head(nets.global_mean_pool(hidden, batch))

        data = [
            geometric.data.Data(x=torch.randn(n, 5), edge_index=torch.randint(0, n, (2, 3 * n)))
            for n in (5, 6, 6, 7)
        ]
        batch = geometric.data.Batch.from_data_list(data)
        features, _, structure = graphs.padded_graphs(batch)
        return Case(graphs.PaddedGraphs(Classifier().eval()), features, structure)

    return build


class _Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.body = kind(5, 12, batch_first=True)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(inputs)[0][:, -1])


def _series(model: Callable[[], nn.Module]) -> Callable[[], Case]:
    return lambda: Case(model().eval(), torch.randn(N, LENGTH, 5))


def _convolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(LENGTH, 8, 3), nn.BatchNorm1d(8), nn.GELU(), nn.Flatten(), nn.Linear(24, CLASSES)
    )


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(5, 1, 16, dropout=0.0, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(5 * LENGTH, CLASSES))


_SMALL = {
    "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 16,
}  # fmt: skip
_PATCHES = {**_SMALL, "image_size": 32, "patch_size": 8}
del _PATCHES["max_position_embeddings"]

#: Every architecture by its name.
ARCHITECTURES: dict[str, Architecture] = {
    "BERT": Architecture("text", "transformers", _text("Bert", **_SMALL)),
    "DistilBERT": Architecture(
        "text", "transformers",
        _text("DistilBert", dim=WIDTH, n_layers=2, n_heads=2, hidden_dim=24,
              max_position_embeddings=16),
    ),
    "RoBERTa": Architecture("text", "transformers", _text("Roberta", **_SMALL)),
    "ELECTRA": Architecture(
        "text", "transformers", _text("Electra", embedding_size=WIDTH, **_SMALL)
    ),
    "ALBERT": Architecture("text", "transformers", _text("Albert", embedding_size=WIDTH, **_SMALL)),
    "MPNet": Architecture("text", "transformers", _text("MPNet", **_SMALL)),
    "GPT-2": Architecture(
        "text", "transformers",
        _text("GPT2", n_embd=WIDTH, n_layer=2, n_head=2, n_positions=16, pad_token_id=0),
    ),
    "ViT": Architecture("image", "transformers", _image("ViT", **_PATCHES)),
    "DeiT": Architecture("image", "transformers", _image("DeiT", **_PATCHES)),
    "BEiT": Architecture("image", "transformers", _image("Beit", **_PATCHES)),
    "Swin": Architecture(
        "image", "transformers",
        _image("Swin", image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2],
               window_size=4),
    ),
    "ConvNeXt": Architecture(
        "image", "transformers", _image("ConvNext", hidden_sizes=[4, 8, 8, 16], depths=[1, 1, 1, 1])
    ),
    "ResNet": Architecture(
        "image", "transformers",
        _image("ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"),
    ),
    "RegNet": Architecture(
        "image", "transformers",
        _image("RegNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4),
    ),
    "MobileNetV1": Architecture(
        "image", "transformers", _image("MobileNetV1", depth_multiplier=0.25, min_depth=4)
    ),
    "MobileNetV2": Architecture(
        "image", "transformers", _image("MobileNetV2", depth_multiplier=0.25, min_depth=4)
    ),
    "EfficientNet": Architecture(
        "image", "transformers",
        _image("EfficientNet", width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320),
    ),
    "PoolFormer": Architecture(
        "image", "transformers",
        _image("PoolFormer", hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1]),
    ),
    "FT-Transformer": Architecture(
        "table", "rtdl_revisiting_models",
        _table(lambda rtdl: _WithoutCategories(rtdl.FTTransformer(
            n_cont_features=10, cat_cardinalities=[], d_out=CLASSES, n_blocks=1, d_block=16,
            attention_n_heads=2, attention_dropout=0.0, ffn_d_hidden=16,
            ffn_d_hidden_multiplier=None, ffn_dropout=0.0,
            residual_dropout=0.0))),
    ),
    "MLP": Architecture(
        "table", "rtdl_revisiting_models",
        _table(lambda rtdl: rtdl.MLP(d_in=10, d_out=CLASSES, n_blocks=2, d_block=16, dropout=0.1)),
    ),
    "ResNet for tables": Architecture(
        "table", "rtdl_revisiting_models",
        _table(lambda rtdl: rtdl.ResNet(
            d_in=10, d_out=CLASSES, n_blocks=2, d_block=16, d_hidden=16, d_hidden_multiplier=None,
            dropout1=0.1, dropout2=0.0)),
    ),
    "GCN": Architecture("graph", "torch_geometric", _graph("GCN")),
    "GAT": Architecture("graph", "torch_geometric", _graph("GAT")),
    "GIN": Architecture("graph", "torch_geometric", _graph("GIN")),
    "GraphSAGE": Architecture("graph", "torch_geometric", _graph("GraphSAGE")),
    "LSTM": Architecture("sequence", "torch", _series(lambda: _Recurrent(nn.LSTM))),
    "GRU": Architecture("sequence", "torch", _series(lambda: _Recurrent(nn.GRU))),
    "1-D convolutions": Architecture("sequence", "torch", _series(_convolution)),
    "Transformer encoder": Architecture("sequence", "torch", _series(_encoder)),
}  # fmt: skip
