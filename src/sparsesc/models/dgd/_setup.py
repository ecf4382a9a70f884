"""Setup of cells for a deep generative decoder, and the entries of their registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager, fields
from scvi.model.base import BaseModelClass

from sparsesc._values import check_choice, listing
from sparsesc.door import _checks as check

from ._cells import CellReader, check_values
from ._heads import HEADS
from ._module import EXPRESSION, values_key

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

INDICES = "_indices"  # column of obs: position of the vector of a cell


class DGDSetup(BaseModelClass):
    """Registration of AnnData and MuData, and access to the registry, which a model has even without cells."""

    _likelihoods: dict[str, str]

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Register the cells: which layer has the values, and which columns of ``obs`` are covariates.

        Parameters
        ----------
        adata
            Cells x genes.
        layer
            Layer with the values. ``None``: ``X``.
        batch_key
            Column of ``obs`` with the batch.
        labels_key
            Column of ``obs`` with cell types. Only their number is used, for `n_components`.
        categorical_covariate_keys
            More columns of ``obs`` that the latent space should not hold.
        **kwargs
            Passed on by scvi-tools when a saved model is loaded.
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        adata.obs[INDICES] = np.arange(adata.n_obs)
        cls._register(
            adata,
            setup_method_args,
            [fields.LayerField(values_key(EXPRESSION), layer, is_count_data=False)],
            (fields.NumericalObsField, fields.CategoricalObsField, fields.CategoricalJointObsField),
            **kwargs,
        )

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        layers: Mapping[str, str | None] | Sequence[str],
        batch_key: str | None = None,
        labels_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Register cells with several modalities: which ones to use, and which columns of ``obs`` are covariates.

        Parameters
        ----------
        mdata
            Cells with several modalities, all of the same cells.
        layers
            Modalities, and the layer with the values of each (``None``: its ``X``). The option `likelihood` of the
            model gives the kind of values, for example ``{"rna": "nb", "atac": "bernoulli"}``.
        batch_key, labels_key, categorical_covariate_keys
            Columns of ``mdata.obs``, as in :meth:`setup_anndata`.
        **kwargs
            Passed on by scvi-tools when a saved model is loaded.
        """
        layers = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers)
        setup_method_args = cls._get_setup_method_args(**locals())
        missing = [name for name in layers if name not in mdata.mod]
        if missing or not layers:
            msg = f"layers must name modalities of mdata ({listing(mdata.mod)}), found {listing(layers)}."
            raise KeyError(msg)
        mdata.obs[INDICES] = np.arange(mdata.n_obs)
        cls._register(
            mdata,
            setup_method_args,
            [
                fields.MuDataLayerField(values_key(name), layer, is_count_data=False, mod_key=name, mod_required=True)
                for name, layer in layers.items()
            ],
            (fields.MuDataNumericalObsField, fields.MuDataCategoricalObsField, fields.MuDataCategoricalJointObsField),
            **kwargs,
        )

    @classmethod
    def _register(
        cls,
        adata: AnnData | MuData,
        setup_method_args: dict[str, Any],
        values: list[Any],
        kinds: tuple[Any, Any, Any],
        **kwargs: Any,
    ) -> None:
        """Register values and the named columns of ``obs``."""
        numerical, categorical, joint = kinds
        names = setup_method_args["setup_args"]
        entries = [*values, numerical(REGISTRY_KEYS.INDICES_KEY, INDICES)]
        for registry_key, key in ((REGISTRY_KEYS.BATCH_KEY, "batch_key"), (REGISTRY_KEYS.LABELS_KEY, "labels_key")):
            if names[key] is not None:
                check.get_obs_column(adata, names[key])
                entries.append(categorical(registry_key, names[key]))
        if names["categorical_covariate_keys"]:
            entries.append(joint(REGISTRY_KEYS.CAT_COVS_KEY, names["categorical_covariate_keys"]))
        manager = AnnDataManager(fields=entries, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    def get_var_names(self, legacy_mudata_format: bool = False) -> Any:
        """Names of the features that the model has; by modality if there are several."""
        names = {name: features.to_numpy() for name, features in self._features.items()}
        if EXPRESSION in names:
            return names[EXPRESSION]
        return np.concatenate(list(names.values())) if legacy_mudata_format else names

    @property
    def _setup_args(self) -> dict[str, Any]:
        return self.registry["setup_args"]

    @property
    def _layers(self) -> dict[str, str | None]:
        options = self._setup_args
        return dict(options["layers"]) if "layers" in options else {EXPRESSION: options["layer"]}

    def _state(self, key: str) -> dict[str, Any]:
        return self.registry["field_registries"][key]["state_registry"]

    @property
    def _features(self) -> dict[str, pd.Index]:
        return {name: pd.Index(self._state(values_key(name))["column_names"]).astype(str) for name in self._layers}

    @property
    def _covariates(self) -> dict[str, pd.Index]:
        """Labels by column of ``obs``, the batch first."""
        labels = {}
        if self._setup_args["batch_key"] is not None:
            labels[self._setup_args["batch_key"]] = self._state(REGISTRY_KEYS.BATCH_KEY)["categorical_mapping"]
        if self._setup_args["categorical_covariate_keys"]:
            labels |= self._state(REGISTRY_KEYS.CAT_COVS_KEY)["mappings"]
        return {key: pd.Index(names, dtype=object) for key, names in labels.items()}

    def _label_codes(self, adata: AnnData | MuData) -> np.ndarray:
        """Labels of cells, cells x covariates; -1 for those that the model does not have."""
        codes = [
            labels.get_indexer(check.get_obs_column(adata, key).to_numpy(dtype=object))
            for key, labels in self._covariates.items()
        ]
        return np.column_stack(codes) if codes else np.zeros((adata.n_obs, 0), dtype=np.int64)

    def _check_likelihoods(self, likelihood: str | Mapping[str, str]) -> dict[str, str]:
        """By modality."""
        names = list(self._layers)
        likelihoods = dict.fromkeys(names, likelihood) if isinstance(likelihood, str) else dict(likelihood)
        if set(likelihoods) != set(names):
            msg = f"likelihood must name the modalities {listing(names)}, found {listing(likelihoods)}."
            raise ValueError(msg)
        for name in names:
            check_choice(likelihoods[name], HEADS, name="likelihood")
        return {name: str(likelihoods[name]) for name in names}

    def _values(self) -> dict[str, Any]:
        """Values of the cells by modality, checked."""
        matrices = {name: self.adata_manager.get_from_registry(values_key(name)) for name in self._layers}
        for name, values in matrices.items():
            if not hasattr(values, "to_memory") and not hasattr(values, "compute"):
                check_values(values, self._likelihoods[name], name=repr(self._layers[name] or "X"))
        return matrices

    def _reader(self, adata: AnnData | MuData, layer: str | Mapping[str, str | None] | None) -> CellReader:
        layers = self._layers
        if isinstance(layer, Mapping):
            layers |= dict(layer)
        elif layer is not None:
            layers = dict.fromkeys(layers, layer)
        return CellReader(
            adata, features=self._features, layers=layers, likelihoods=self._likelihoods, covariates=self._covariates
        )
