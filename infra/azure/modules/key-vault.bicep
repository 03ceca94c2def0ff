// Secrets of source databases, alert receivers and the Databricks webhook. Rights are roles, never access policies.

@description('Name of the vault: 3 to 24 letters, digits and hyphens, unique in the world.')
@minLength(3)
@maxLength(24)
param name string

@description('Azure region.')
param location string

@description('Tags of every resource.')
param tags object

@description('Disabled when the vault is reached by private endpoints alone.')
@allowed(['Enabled', 'Disabled'])
param publicNetworkAccess string

@description('Days in which a deleted secret can be brought back. It cannot be changed later.')
@minValue(7)
@maxValue(90)
param softDeleteDays int

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' = {
  // checkov:skip=CKV_AZURE_109:The network rule follows publicNetworkAccess, a parameter.
  // checkov:skip=CKV_AZURE_189:publicNetworkAccess is a parameter, Disabled with private networking.
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: softDeleteDays
    // For good: neither an attacker nor a clean-up script can empty the vault.
    enablePurgeProtection: true
    publicNetworkAccess: publicNetworkAccess
    networkAcls: {
      // Databricks reads a secret scope that is backed by this vault as a trusted service.
      bypass: 'AzureServices'
      defaultAction: publicNetworkAccess == 'Disabled' ? 'Deny' : 'Allow'
    }
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: vault
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        // Who read which secret, and when.
        categoryGroup: 'audit'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

output id string = vault.id
output name string = vault.name
output url string = 'https://${vault.name}${environment().suffixes.keyvaultDns}'
